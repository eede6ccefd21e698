"""The tensors of a checkpoint as llama.cpp's architecture "gptneox" names and orders them.

Three things differ. QKV's rows are `[3, heads, head_dim]` there and `[heads, 3, head_dim]` here.
Every product has a bias there, here only the last layer's attention (`dense_bias`): the others are
zeros. And there a head is always stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.inference.loading.hparams import HParams
from gpt_neox_japanese.inference.loading.weight_map import TABLES
from gpt_neox_japanese.quantization.bfloat16_arrays import float32_array
from gpt_neox_japanese.quantization.formats import find_tensor

__all__ = [
    "LlamaTensor",
    "check_hparams",
    "from_llama",
    "never_written_row",
    "read_source",
    "to_llama",
]

_PREFIX = "gpt_neox_japanese."
_FINAL_NORM = f"{_PREFIX}final_layer_norm"
_EMBEDDING, _HEAD = TABLES

_MAX_LAYERS = 512  # LLAMA_MAX_LAYERS

# An id that is never written scores so much less than the best one, which makes it e^100 times
# less likely; it aims at `_SCORE`, of which rounding must leave a share.
_MARGIN = 100.0
_SCORE = -1000.0
_LEAST_SHARE = 0.1

# The least sum of bias / weight of the final norm that can be worked with.
_LEAST_CONSTANT = 1e-3


class LlamaTensor(NamedTuple):
    """A tensor of a GGUF file.

    Attributes:
        name: As llama.cpp calls it.
        source: As the checkpoint calls it; empty for what is zeros there.
        shape: `[outputs, columns]` or `[channels]`.
        qkv: Whether its rows are to be put in another order.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    qkv: bool = False


def check_hparams(hparams: HParams) -> None:
    """Refuse what llama.cpp has no way to compute.

    Args:
        hparams: Sizes and constants, checked.

    Raises:
        CheckpointError: There are too many layers.
    """
    if hparams.num_hidden_layers > _MAX_LAYERS:
        raise CheckpointError(
            f"config.json: num_hidden_layers is {hparams.num_hidden_layers}; llama.cpp has"
            f" {_MAX_LAYERS} at most"
        )


def to_llama(hparams: HParams) -> list[LlamaTensor]:
    """The tensors of a GGUF file, in its order; embedding and head have no extra rows yet.

    Args:
        hparams: Sizes and constants.

    Returns:
        Every tensor that llama.cpp reads.
    """
    hidden, wide = hparams.hidden_size, hparams.intermediate_size
    tensors = [
        LlamaTensor("token_embd.weight", _EMBEDDING, (hparams.vocab_size, hidden)),
        *_norm("output_norm", _FINAL_NORM, hidden),
        LlamaTensor("output.weight", _HEAD, (hparams.vocab_size, hidden)),
    ]
    for layer in range(hparams.num_hidden_layers):
        theirs, ours = f"blk.{layer}.", f"{_PREFIX}layers.{layer}."
        qkv, dense = f"{ours}attention.query_key_value", f"{ours}attention.dense"
        bias = f"{dense}_bias" if layer == hparams.num_hidden_layers - 1 else ""
        up, down = f"{ours}mlp.dense_h_to_4h", f"{ours}mlp.dense_4h_to_h"
        tensors += [
            *_norm(f"{theirs}attn_norm", f"{ours}input_layernorm", hidden),
            LlamaTensor(f"{theirs}attn_qkv.weight", f"{qkv}.weight", (3 * hidden, hidden), True),
            LlamaTensor(f"{theirs}attn_qkv.bias", "", (3 * hidden,)),
            LlamaTensor(f"{theirs}attn_output.weight", f"{dense}.weight", (hidden, hidden)),
            LlamaTensor(f"{theirs}attn_output.bias", bias, (hidden,)),
            *_norm(f"{theirs}ffn_norm", f"{ours}post_attention_layernorm", hidden),
            LlamaTensor(f"{theirs}ffn_up.weight", f"{up}.weight", (wide, hidden)),
            LlamaTensor(f"{theirs}ffn_up.bias", "", (wide,)),
            LlamaTensor(f"{theirs}ffn_down.weight", f"{down}.weight", (hidden, wide)),
            LlamaTensor(f"{theirs}ffn_down.bias", "", (hidden,)),
        ]
    return tensors


def read_source(
    hparams: HParams, tensors: Mapping[str, NDArray[Any]], wanted: LlamaTensor
) -> NDArray[np.float32]:
    """A tensor of a checkpoint, as llama.cpp has it.

    Args:
        hparams: Sizes and constants.
        tensors: The checkpoint's, by name; tables may have rows that only pad them.
        wanted: One of `to_llama`.

    Returns:
        float32, of the shape wanted.

    Raises:
        CheckpointError: It is missing or has another shape.
    """
    if not wanted.source:
        return np.zeros(wanted.shape, dtype=np.float32)
    name = _EMBEDDING if wanted.source == _HEAD and _HEAD not in tensors else wanted.source
    shape = wanted.shape
    if name in TABLES and name in tensors and tensors[name].ndim == 2:
        shape = (max(shape[0], len(tensors[name])), *shape[1:])
    array = float32_array(find_tensor(tensors, name, shape)[: wanted.shape[0]])
    return _qkv(hparams, array, forth=True) if wanted.qkv else array


def from_llama(
    hparams: HParams, wanted: LlamaTensor, array: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A tensor of a GGUF file as the checkpoint has it.

    Args:
        hparams: Sizes and constants.
        wanted: One of `to_llama`.
        array: float32, of the shape wanted.

    Returns:
        float32 of the same shape.
    """
    return _qkv(hparams, array, forth=False) if wanted.qkv else array


def never_written_row(
    norm: NDArray[np.float32],
    head: NDArray[np.float32],
    *,
    kind: str,
    stored: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """A row of the head whose score is far below the best one, whatever the text.

    What the head sees is `w * x + b` with the final norm's weight w and bias b, where the mean of x
    is 0. The row `alpha / w` scores `alpha * sum(x) + alpha * sum(b / w)`: a constant.

    Args:
        norm: Weight and bias of the final norm, float32 [2, channels].
        head: float32 [ids, channels].
        kind: The type in which the head is stored, for messages and for how it is multiplied.
        stored: Gives what becomes of a row, [1, channels], when it is stored.

    Returns:
        float32 [1, channels].

    Raises:
        CheckpointError: The final norm makes no such row.
    """
    weight, bias = norm.astype(np.float64)

    def highest(row: NDArray[np.float32]) -> float:
        kept = stored(row)[0].astype(np.float64)
        return _highest_score(weight, bias, kept) + _noise(weight, bias, kept, kind)

    with np.errstate(all="ignore"):  # what comes of it is looked at
        constant = (bias / weight).sum()
        if not np.isfinite(constant) or abs(constant) < _LEAST_CONSTANT:
            raise CheckpointError(
                f"{_FINAL_NORM}: the sum of bias / weight is {constant:.3g}; it must not be 0 to"
                " keep the extra ids of a GGUF file from being written (a model that was never"
                " trained has no bias there); train the model first"
            )
        limit = _lowest_best_score(weight, bias, head) - _MARGIN
        # What rounding adds grows with the row: one that is rounded well must only be long enough.
        row: NDArray[np.float32] = (_SCORE / constant / weight).astype(np.float32)[np.newaxis]
        if (share := highest(row) / _SCORE) > _LEAST_SHARE:
            row *= np.float32(max(1.0, 1.1 * limit / (share * _SCORE)))
            if highest(row) <= limit:
                return row
    raise CheckpointError(
        f"{_FINAL_NORM}: its weights are so uneven, or the sum of bias / weight ({constant:.3g}) so"
        f" close to 0, that {kind} is too coarse to keep extra ids from being written; choose f32"
        if kind != "F32"
        else f"{_FINAL_NORM}: its weights, or the sum of bias / weight ({constant:.3g}), are too"
        " close to 0 to keep extra ids from being written; train the model further"
    )


def _norm(theirs: str, ours: str, hidden: int) -> list[LlamaTensor]:
    parts = ("weight", "bias")
    return [LlamaTensor(f"{theirs}.{part}", f"{ours}.{part}", (hidden,)) for part in parts]


def _qkv(hparams: HParams, matrix: NDArray[np.float32], *, forth: bool) -> NDArray[np.float32]:
    """Put the rows of QKV in llama.cpp's order, or back."""
    heads, size = hparams.num_attention_heads, hparams.head_dim
    shape = (heads, 3, size, -1) if forth else (3, heads, size, -1)
    return np.ascontiguousarray(matrix.reshape(shape).swapaxes(0, 1).reshape(matrix.shape))


def _lowest_best_score(
    weight: NDArray[np.float64], bias: NDArray[np.float64], head: NDArray[np.float32]
) -> float:
    """What the best id scores at least: of each id's lowest possible score the highest."""
    lowest = -np.inf
    for begin in range(0, len(head), 4096):
        rows = head[begin : begin + 4096].astype(np.float64)
        lowest = max(lowest, float((rows @ bias - _reach(rows * weight)).max()))
    return lowest


def _highest_score(
    weight: NDArray[np.float64], bias: NDArray[np.float64], row: NDArray[np.float64]
) -> float:
    return float(row @ bias + _reach(row * weight))


def _reach(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """How large a product with x can be: its mean is 0, and its length at most sqrt(channels)."""
    centred = rows - rows.mean(axis=-1, keepdims=True)
    reach: NDArray[np.float64] = np.sqrt(rows.shape[-1]) * np.linalg.norm(centred, axis=-1)
    return reach


def _noise(
    weight: NDArray[np.float64], bias: NDArray[np.float64], row: NDArray[np.float64], kind: str
) -> float:
    """Ten standard deviations of what rounding activations to the head's type adds to its score."""
    size = 6 * np.abs(weight) + np.abs(bias)
    if kind == "Q8_0":
        size = np.repeat(size.reshape(-1, 32).max(axis=1), 32)
    step = {"F32": 0.0, "F16": 2.0**-11, "BF16": 2.0**-9}.get(kind, 1 / 254)
    return float(10 * step * np.linalg.norm(row * size))
