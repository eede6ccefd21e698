"""The network on torch's tensors: for GPUs, and the readable twin of the compiled one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gpt_neox_japanese.checks import one_line
from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.inference.cpu.workspace import RotationTables
from gpt_neox_japanese.inference.loading.hparams import HParams
from gpt_neox_japanese.inference.loading.weight_map import Layer, Norm, Weights
from gpt_neox_japanese.inference.network import CHUNK, BatchToken
from gpt_neox_japanese.inference.torch.cuda_graphs import MAX_ROWS, Graphs
from gpt_neox_japanese.quantization.formats import Matrix

__all__ = ["TensorNetwork", "check_device"]

# Products of whole numbers add up to more than float16 holds, and their scales are next to nothing
# there. As fractions of this one the numbers are as exact, and scales are as large as weights.
_INT8_ONE = 128

_Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Layer; queries, keys and values of some tokens, [tokens, heads, head_dim] → mixed values."""


class TensorNetwork:
    """A causal language model for up to `slots` texts, on tensors; see `network.Network`.

    `decode` always computes MAX_ROWS tokens, the last one repeated if there are fewer: matrix
    products of one shape round alike. On a GPU the whole of it is one captured graph, since
    starting its hundreds of kernels one by one would take longer than they run.

    Args:
        hparams: Sizes and constants.
        weights: The tensors of the model.
        dtype: What weights, activations and cache are converted to, as torch names it. int8 stays
            int8 and is widened where it is used.
        device: Where they are put.
        slots: Texts that the cache holds at once.
        capacity: Tokens of each; None for as many as the model can read.
    """

    def __init__(
        self,
        hparams: HParams,
        weights: Weights,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        slots: int = 1,
        capacity: int | None = None,
    ) -> None:
        self.hparams = hparams
        self.max_rows = MAX_ROWS
        self.slots = slots
        self.capacity = capacity or hparams.max_position_embeddings
        self.device = torch.device(device)
        self.dtype: torch.dtype = getattr(torch, dtype)
        smaller = "choose bfloat16 or float16, or make int8 of them (neox-ja convert --to int8)"
        with _room_for("the weights", device, smaller):
            self._embedding = self._product(weights.embedding)
            tied = weights.head is weights.embedding
            self._head = self._embedding if tied else self._product(weights.head)
            self._layers = [self._layer(layer) for layer in weights.layers]
            self._final_norm = self._norm(weights.final_norm)
        self._tables = RotationTables(hparams, self.capacity)
        size = (
            len(self._layers),
            slots,
            hparams.num_attention_heads,
            self.capacity,
            hparams.head_dim,
        )
        half = hparams.rotary_dim // 2
        cache = f"the KV cache of {slots} texts of {self.capacity:,} tokens"
        remedy = "choose fewer slots, or lower max_position_embeddings in config.json"
        with _room_for(cache, device, remedy):
            self._cos, self._sin = torch.zeros(2, self.capacity, 1, half, device=self.device)
            self._keys, self._values = torch.zeros(2, *size, dtype=self.dtype, device=self.device)
        at = self._keys.device  # with its number, which "cuda" lacks
        self._graphs = Graphs(self._scores, self.capacity, at) if at.type == "cuda" else None

    @property
    def description(self) -> str:
        """What runs, in one line."""
        return f"torch {torch.__version__}, {self.dtype} on {self.device}, {self.slots} slots"

    # ---- What the engine calls -------------------------------------------------------------------

    @torch.inference_mode()
    def decode(
        self, tokens: Sequence[BatchToken], num_without_logits: int = 0
    ) -> NDArray[np.float32]:
        """See `Network.decode`."""
        padded = [*tokens, *[tokens[-1]] * (MAX_ROWS - len(tokens))]
        rows = torch.tensor(padded, device=self.device).T
        end = max(token.position for token in tokens) + 1
        self._extend_tables(end)
        logits = self._graphs.run(rows, end) if self._graphs else self._scores(rows, end)
        return logits[num_without_logits : len(tokens)].float().cpu().numpy()

    @torch.inference_mode()
    def prefill(
        self,
        ids: Sequence[int],
        slot: int,
        position: int,
        *,
        is_wanted: Callable[[], bool] = lambda: True,
        with_logits: bool = False,
    ) -> NDArray[np.float32] | None:
        """See `Network.prefill`; `is_wanted` is asked between chunks, which take no longer."""
        logits = []
        for begin in range(0, len(ids), CHUNK):
            if not is_wanted():
                return None
            hidden = self._read_chunk(ids[begin : begin + CHUNK], slot, position + begin)
            logits.append(self._logits(hidden if with_logits else hidden[:0]))
        return torch.cat(logits).float().cpu().numpy()

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """See `Network.copy`."""
        for states in (self._keys, self._values):
            states[:, target, :, :length] = states[:, source, :, :length]

    @torch.inference_mode()
    def truncate(self, slot: int, length: int) -> None:
        """See `Network.truncate`.

        Attention reads what its mask hides, and takes it times nothing: NaN and infinities of a
        text that overflowed would be NaN in every text that is kept there after it.
        """
        for states in (self._keys, self._values):
            states[:, slot, :, length:] = 0

    def close(self) -> None:
        """See `Network.close`; there are no threads to end."""

    def _extend_tables(self, end: int) -> None:
        """Put new rows where they belong, since a captured graph knows the place."""
        new = self._tables.extend(end)
        for rows, table in ((self._cos, self._tables.cos), (self._sin, self._tables.sin)):
            rows[new] = torch.from_numpy(table[new])[:, None].to(self.device)

    # ---- The arithmetic --------------------------------------------------------------------------

    def _scores(self, rows: Tensor, end: int) -> Tensor:
        """Scores of tokens of any slots, [MAX_ROWS, vocabulary].

        Args:
            rows: int64 [3, MAX_ROWS]: ids, slots, positions.
            end: More than the highest position.
        """
        ids, slots, positions = rows
        # Token i sees what its slot holds up to its own position.
        mask = torch.arange(end, device=self.device) <= positions[:, None, None, None]

        def attend(index: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            self._keys[index, slots, :, positions] = keys
            self._values[index, slots, :, positions] = values
            mixed = functional.scaled_dot_product_attention(
                queries[:, :, None],  # (tokens, heads, 1, head_dim)
                self._keys[index, slots, :, :end],
                self._values[index, slots, :, :end],
                attn_mask=mask,
            )
            return mixed[:, :, 0]

        hidden = self._run(self._embedding.rows(ids), positions, attend)
        return self._logits(hidden)

    def _logits(self, hidden: Tensor) -> Tensor:
        return self._head(self._normalized(hidden, self._final_norm))

    def _read_chunk(self, ids: Sequence[int], slot: int, position: int) -> Tensor:
        """Compute a chunk; hidden states, [tokens, hidden]."""
        end = position + len(ids)
        self._extend_tables(end)
        positions = torch.arange(position, end, device=self.device)
        mask = torch.ones(len(ids), end, dtype=torch.bool, device=self.device).tril(position)

        def attend(index: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            self._keys[index, slot, :, position:end] = keys.transpose(0, 1)
            self._values[index, slot, :, position:end] = values.transpose(0, 1)
            mixed = functional.scaled_dot_product_attention(
                queries.transpose(0, 1)[None],  # (1, heads, tokens, head_dim)
                self._keys[index, slot, None, :, :end],
                self._values[index, slot, None, :, :end],
                attn_mask=mask,
            )
            return mixed[0].transpose(0, 1)

        tokens = torch.tensor(ids, device=self.device)
        return self._run(self._embedding.rows(tokens), positions, attend)

    def _run(self, hidden: Tensor, positions: Tensor, attend: _Attend) -> Tensor:
        """All layers, on hidden states [tokens, hidden]."""
        cos, sin = self._cos[positions], self._sin[positions]  # (tokens, 1, rotated / 2)
        for index, layer in enumerate(self._layers):
            packed = layer.query_key_value(self._normalized(hidden, layer.input_norm))
            packed = packed.view(len(hidden), self.hparams.num_attention_heads, -1)
            queries, keys, values = packed.chunk(3, dim=-1)
            queries, keys = _rotate(queries, cos, sin), _rotate(keys, cos, sin)
            mixed = attend(index, queries, keys, values).reshape(len(hidden), -1)
            hidden = hidden + layer.dense(mixed)
            if layer.dense_bias is not None:
                hidden = hidden + layer.dense_bias
            wide = layer.up_proj(self._normalized(hidden, layer.post_attention_norm))
            wide = functional.gelu(wide, approximate=self.hparams.gelu_approximation)
            hidden = hidden + layer.down_proj(wide)
        return hidden

    def _normalized(self, hidden: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
        return functional.layer_norm(hidden, hidden.shape[-1:], *norm, self.hparams.layer_norm_eps)

    # ---- From NumPy's arrays ---------------------------------------------------------------------

    def _layer(self, layer: Layer) -> _TensorLayer:
        bias = layer.dense_bias
        return _TensorLayer(
            input_norm=self._norm(layer.input_norm),
            query_key_value=self._product(layer.query_key_value),
            dense=self._product(layer.dense),
            dense_bias=None if bias is None else torch.tensor(bias).to(self.device, self.dtype),
            post_attention_norm=self._norm(layer.post_attention_norm),
            up_proj=self._product(layer.up_proj),
            down_proj=self._product(layer.down_proj),
        )

    def _norm(self, norm: Norm) -> tuple[Tensor, Tensor]:
        weight, bias = torch.tensor(norm).to(self.device, self.dtype)
        return weight, bias

    def _product(self, matrix: Matrix) -> _Product:
        if matrix.numbers.dtype == np.int8:
            assert matrix.scales is not None
            numbers, scales = (torch.tensor(each) for each in matrix)
            scales = (scales * _INT8_ONE).to(self.device, self.dtype)
            return _Product(numbers.to(self.device), scales)
        if matrix.numbers.dtype == np.uint16:
            weight = torch.tensor(matrix.numbers).view(torch.bfloat16)
        else:
            weight = torch.tensor(matrix.floats())
        return _Product(weight.to(self.device, self.dtype), None)


class _Product(NamedTuple):
    """A matrix to multiply with, and to look rows up in.

    Attributes:
        weight: [outputs, columns], the network's dtype or int8.
        scales: [outputs], of int8, times _INT8_ONE.
    """

    weight: Tensor
    scales: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """`x`, [tokens, columns], times the matrix, transposed."""
        if self.scales is None:
            return functional.linear(x, self.weight)
        return functional.linear(x, _fractions(self.weight, x.dtype)) * self.scales

    def rows(self, ids: Tensor) -> Tensor:
        """Rows of the matrix, [ids, columns]."""
        rows = self.weight[ids]
        if self.scales is None:
            return rows
        return _fractions(rows, self.scales.dtype) * self.scales[ids, None]


def _fractions(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    """int8 as -1 to 1, in one pass over the numbers."""
    return numbers * torch.tensor(1 / _INT8_ONE, dtype=dtype)


class _TensorLayer(NamedTuple):
    """`weight_map.Layer` on tensors."""

    input_norm: tuple[Tensor, Tensor]
    query_key_value: _Product
    dense: _Product
    dense_bias: Tensor | None
    post_attention_norm: tuple[Tensor, Tensor]
    up_proj: _Product
    down_proj: _Product


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + rotated / 2) of [tokens, heads, head_dim], in float32."""
    half = cos.shape[-1]
    sizes = [half, half, states.shape[-1] - 2 * half]
    first, second, rest = torch.split(states, sizes, dim=-1)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return torch.cat([*(part.to(states.dtype) for part in turned), rest], dim=-1)


@contextmanager
def _room_for(what: str, device: str, remedy: str) -> Iterator[None]:
    """Tell that a device has no room; torch has no class of its own for that on every device."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        raise CheckpointError(
            f"{device} has no room for {what}; {remedy} ({one_line(error)})"
        ) from error


def check_device(device: str) -> None:
    """Raise CheckpointError unless torch can use a device.

    Args:
        device: As torch names it.

    Raises:
        CheckpointError: It cannot.
    """
    try:
        if torch.empty(0, device=device).device.type != "meta":
            return
        reason = "it only counts, and computes nothing"
    except NotImplementedError:
        reason = "this torch has none"
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        if "Expected one of" in reason:
            reason = "torch knows no device of that name"
    usable = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    usable += ["mps"] * torch.backends.mps.is_available()
    raise CheckpointError(
        f"device {device!r} cannot be used here: {reason}; choose {' or '.join(usable)}"
    )
