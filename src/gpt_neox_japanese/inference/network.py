"""The model as arithmetic on plain tensors, for writing text.

It computes what `model/` computes, for one sequence, on a cache of keys and values that is made
once. Without transformers it is ready in the time that torch takes to import, and a token costs no
more than its matrix products and a handful of small operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from gpt_neox_japanese.errors import CheckpointError

__all__ = ["Cache", "Network", "Shape"]

_PREFIX = "gpt_neox_japanese."
_GELU_APPROXIMATION = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}

# Rows read at once. The scores of a longer prompt would take memory by the square of its length.
_CHUNK = 512


@dataclass(frozen=True)
class Shape:
    """The numbers of `config.json` that decide the arithmetic."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_multiple_size: int
    max_position_embeddings: int
    rotated: int
    rotary_base: float
    layer_norm_eps: float
    gelu_approximation: str

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Read a configuration in transformers 4's or 5's spelling.

        Raises:
            CheckpointError: A number is missing or makes no sense.
        """
        rope = config.get("rope_parameters") or {}
        sizes = {
            name: config.get(name, default)
            for name, default in (
                ("vocab_size", 32000),
                ("hidden_size", 2560),
                ("num_hidden_layers", 32),
                ("num_attention_heads", 32),
                ("intermediate_multiple_size", 4),
                ("max_position_embeddings", 2048),
            )
        }
        for name, size in sizes.items():
            if not isinstance(size, int) or size < 1:
                raise CheckpointError(f"config.json: {name} is {size!r}; it must be 1 or more")
        head_dim, rest = divmod(sizes["hidden_size"], sizes["num_attention_heads"])
        share = rope.get("partial_rotary_factor", config.get("rotary_pct", 1.0))
        rotated = int(head_dim * share)
        if rest or rotated < 2 or rotated % 2 or rotated > head_dim:
            raise CheckpointError(
                f"config.json: {sizes['hidden_size']} channels, {sizes['num_attention_heads']}"
                f" heads and rotary_pct {share} do not give an even number of rotated channels"
            )
        activation = config.get("hidden_act", "gelu")
        kind = rope.get("rope_type", "default")
        if activation not in _GELU_APPROXIMATION or kind != "default":
            raise CheckpointError(
                f"config.json: activation {activation!r} with rotary type {kind!r} is not written"
                " here; use GPTNeoXJapaneseForCausalLM.generate"
            )
        return cls(
            **sizes,
            rotated=rotated,
            rotary_base=float(rope.get("rope_theta", config.get("rotary_emb_base", 10000))),
            layer_norm_eps=float(config.get("layer_norm_eps", 1e-5)),
            gelu_approximation=_GELU_APPROXIMATION[activation],
        )

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.hidden_size // self.num_attention_heads


class Cache(NamedTuple):
    """Keys and values of the tokens read so far.

    Attributes:
        keys: `(layers, heads, capacity, head_dim)`, the network's dtype.
        values: As `keys`.
    """

    keys: Tensor
    values: Tensor


class _Layer(NamedTuple):
    """The tensors of one layer, as the checkpoint names them."""

    norm_1: tuple[Tensor, Tensor]
    query_key_value: Tensor  # (heads * 3 * head_dim, hidden)
    dense: Tensor  # (hidden, hidden)
    dense_bias: Tensor | None  # (hidden,), in the last layer only
    norm_2: tuple[Tensor, Tensor]
    widen: Tensor  # (hidden * multiple, hidden)
    narrow: Tensor  # (hidden, hidden * multiple)


class Network:
    """A causal language model for one sequence at a time.

    Args:
        shape: Sizes and constants.
        weights: The tensors of a checkpoint by name. Names that the model does not need, such as
            the attention masks of old checkpoints, are ignored.
        dtype: What the weights are converted to.
        device: Where they are put.

    Raises:
        CheckpointError: A tensor is missing or has another shape than the config says.
    """

    def __init__(
        self,
        shape: Shape,
        weights: Mapping[str, Tensor],
        *,
        dtype: torch.dtype,
        device: str = "cpu",
    ) -> None:
        self.shape = shape
        self.device = torch.device(device)
        self.dtype = dtype
        hidden, wide = shape.hidden_size, shape.hidden_size * shape.intermediate_multiple_size
        last = shape.num_hidden_layers - 1

        def take(name: str, *size: int) -> Tensor:
            weight = weights.get(name)
            if weight is None or tuple(weight.shape) != size:
                found = "is missing" if weight is None else f"has shape {tuple(weight.shape)}"
                raise CheckpointError(
                    f"the weights do not fit config.json: {name} {found}, {size} is expected"
                )
            return weight.to(self.device, dtype)

        def norm(name: str) -> tuple[Tensor, Tensor]:
            return take(f"{name}.weight", hidden), take(f"{name}.bias", hidden)

        def layer(index: int) -> _Layer:
            name = f"{_PREFIX}layers.{index}"
            return _Layer(
                norm_1=norm(f"{name}.input_layernorm"),
                query_key_value=take(
                    f"{name}.attention.query_key_value.weight", 3 * hidden, hidden
                ),
                dense=take(f"{name}.attention.dense.weight", hidden, hidden),
                dense_bias=take(f"{name}.attention.dense_bias", hidden) if index == last else None,
                norm_2=norm(f"{name}.post_attention_layernorm"),
                widen=take(f"{name}.mlp.dense_h_to_4h.weight", wide, hidden),
                narrow=take(f"{name}.mlp.dense_4h_to_h.weight", hidden, wide),
            )

        self._embedding = take(f"{_PREFIX}embed_in.weight", shape.vocab_size, hidden)
        self._layers = [layer(index) for index in range(shape.num_hidden_layers)]
        self._final_norm = norm(f"{_PREFIX}final_layer_norm")
        # A tied head is the embedding, and is not stored.
        tied = "embed_out.weight" not in weights
        self._head = self._embedding if tied else take("embed_out.weight", shape.vocab_size, hidden)
        self._rotation = self._rotation_tables()

    def _rotation_tables(self) -> tuple[Tensor, Tensor]:
        """Cosines and sines of every position, float32 `(positions, 1, rotated / 2)`."""
        exponents = torch.arange(0, self.shape.rotated, 2, dtype=torch.float32) / self.shape.rotated
        frequencies = 1.0 / self.shape.rotary_base**exponents
        positions = torch.arange(self.shape.max_position_embeddings, dtype=torch.float32)
        angles = (positions[:, None] * frequencies)[:, None]
        return angles.cos().to(self.device), angles.sin().to(self.device)

    def new_cache(self, capacity: int) -> Cache:
        """An empty cache for `capacity` tokens."""
        shape = self.shape
        size = (shape.num_hidden_layers, shape.num_attention_heads, capacity, shape.head_dim)
        keys, values = torch.zeros(2, *size, dtype=self.dtype, device=self.device)
        return Cache(keys, values)

    @torch.inference_mode()
    def read(self, ids: Tensor, cache: Cache, position: int) -> Tensor:
        """Read tokens and score what comes after the last of them.

        Args:
            ids: int64 `(tokens,)`, at least one.
            cache: Holds the `position` tokens before; extended by these.
            position: Where the first of `ids` stands.

        Returns:
            Scores of the next token, float32 `(vocab_size,)`.
        """
        for chunk in torch.split(ids, _CHUNK):
            hidden = self._read_chunk(chunk, cache, position)
            position += len(chunk)
        return functional.linear(self._norm(hidden[-1], self._final_norm), self._head).float()

    def _read_chunk(self, ids: Tensor, cache: Cache, position: int) -> Tensor:
        end = position + len(ids)
        cos, sin = (table[position:end] for table in self._rotation)
        # Row i is the token at position + i, and sees itself and everything before it.
        mask = torch.ones(len(ids), end, dtype=torch.bool, device=self.device).tril(position)
        hidden = self._embedding[ids]  # (tokens, hidden)
        for index, layer in enumerate(self._layers):
            queries, keys, values = self._project(hidden, layer, cos, sin)
            cache.keys[index, :, position:end] = keys
            cache.values[index, :, position:end] = values
            mixed = functional.scaled_dot_product_attention(
                queries[None],
                cache.keys[index, None, :, :end],
                cache.values[index, None, :, :end],
                attn_mask=mask if len(ids) > 1 else None,
            )[0]  # (heads, tokens, head_dim)
            mixed = mixed.transpose(0, 1).reshape(len(ids), -1)
            hidden = hidden + functional.linear(mixed, layer.dense, layer.dense_bias)
            wide = functional.linear(self._norm(hidden, layer.norm_2), layer.widen)
            wide = functional.gelu(wide, approximate=self.shape.gelu_approximation)
            hidden = hidden + functional.linear(wide, layer.narrow)
        return hidden

    def _project(
        self, hidden: Tensor, layer: _Layer, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries, rotated keys, and values, each `(heads, tokens, head_dim)`."""
        packed = functional.linear(self._norm(hidden, layer.norm_1), layer.query_key_value)
        packed = packed.view(len(hidden), self.shape.num_attention_heads, -1)
        queries, keys, values = packed.chunk(3, dim=-1)
        queries, keys = _rotate(queries, cos, sin), _rotate(keys, cos, sin)
        return queries.transpose(0, 1), keys.transpose(0, 1), values.transpose(0, 1)

    def _norm(self, hidden: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
        return functional.layer_norm(hidden, hidden.shape[-1:], *norm, self.shape.layer_norm_eps)


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + rotated / 2) of `(tokens, heads, head_dim)`, in float32."""
    half = cos.shape[-1]
    sizes = [half, half, states.shape[-1] - 2 * half]
    first, second, rest = torch.split(states, sizes, dim=-1)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return torch.cat([*(part.to(states.dtype) for part in turned), rest], dim=-1)
