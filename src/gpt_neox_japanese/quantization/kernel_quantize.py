"""Searches for the scales with the least squared error, compiled."""

from __future__ import annotations

from typing import Any, TypeAlias

import numba
import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.kernels.compile import Number, compiled, entry
from gpt_neox_japanese.kernels.constants import GROUP

__all__ = ["quantize_int4_groups", "quantize_int8_rows"]

Floats: TypeAlias = NDArray[np.float32]

_ROUNDING = 12582912.0  # 1.5 * 2**23: what is added to it becomes whole

# Without NaN, so that comparisons are vectors; that changes no number.
_fastmath: Any = numba.njit(nogil=True, fastmath={"nnan", "ninf", "nsz"})


@_fastmath  # type: ignore[untyped-decorator]
def _clip_and_round(value: Number, low: Number, high: Number) -> Number:
    rounding = np.float32(_ROUNDING)
    # Clipped first: what lies outside may be too large for this way of rounding.
    return (max(low, min(high, value)) + rounding) - rounding


@_fastmath  # type: ignore[untyped-decorator]
def _error(
    values: Floats, importance: Floats, scale: Number, low: Number, high: Number, lanes: Floats
) -> Number:
    """The squared error of a scale.

    Args:
        values: float32 [columns].
        importance: float32 [columns]; what the squared error of each counts.
        scale: float32, not zero.
        low: The least integer.
        high: The greatest integer.
        lanes: float32 [16], for sums: in this form LLVM makes vectors of the loop.
    """
    factor = np.float32(1) / scale
    lanes[:] = 0
    for start in range(0, values.size - 15, 16):
        for lane in range(16):
            value = values[start + lane]
            miss = value - scale * _clip_and_round(value * factor, low, high)
            lanes[lane] += importance[start + lane] * miss * miss
    total = lanes.sum()
    for index in range(values.size - values.size % 16, values.size):
        miss = values[index] - scale * _clip_and_round(values[index] * factor, low, high)
        total += importance[index] * miss * miss
    return total


@compiled
def _absmax(values: Floats) -> Number:
    absmax = np.float32(0)
    for value in values:
        absmax = max(absmax, abs(value))
    return absmax


@entry
def quantize_int8_rows(
    values: Floats, ratios: Floats, quantized: NDArray[np.int8], scales: Floats
) -> None:
    """Quantize to int8 with one scale a row.

    Args:
        values: float32 [outputs, columns], finite.
        ratios: float32 [tries]; what is tried as the largest weight that is not clipped, over the
            largest.
        quantized: int8 [outputs, columns], becomes -127 to 127.
        scales: float32 [outputs].
    """
    low, high = np.float32(-127), np.float32(127)
    lanes, alike = np.empty(16, np.float32), np.ones(values.shape[1], np.float32)
    for row in range(len(values)):
        absmax = _absmax(values[row])
        if absmax < np.float32(1e-30):
            scales[row] = 0
            quantized[row] = 0
            continue
        best = np.float32(np.inf)
        for ratio in ratios:
            scale = absmax * ratio / high
            error = _error(values[row], alike, scale, low, high, lanes)
            if error < best:
                best = error
                scales[row] = scale
        factor = np.float32(1) / scales[row]
        for column in range(values.shape[1]):
            quantized[row, column] = np.int8(
                _clip_and_round(values[row, column] * factor, low, high)
            )


@compiled
def _to_bfloat(value: Number, word: NDArray[np.uint32]) -> Number:
    """Round to bfloat16; `word` is a place for one number. Returns its bits."""
    word.view(np.float32)[0] = value
    bits = word[0]
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16)


@compiled
def _from_bfloat(bits: Number, word: NDArray[np.uint32]) -> Number:
    word[0] = np.uint32(bits) << np.uint32(16)
    return word.view(np.float32)[0]


@entry
def quantize_int4_groups(
    values: Floats,
    importance: Floats,
    steps: Floats,
    quantized: NDArray[np.int8],
    scales: NDArray[np.uint16],
) -> None:
    """Quantize to int4 with one scale a group of GROUP columns.

    The integers go from -8 to 7. So a scale has two directions: with a negative one, the side that
    reaches farther is the other.

    Args:
        values: float32 [outputs, columns], finite; columns a multiple of GROUP.
        importance: float32 [columns]; what the squared error of each column counts.
        steps: float32 [tries]; what is tried as the largest weight over the scale.
        quantized: int8 [outputs, columns], becomes -8 to 7.
        scales: bfloat16 as bit patterns, uint16 [outputs, columns / GROUP].
    """
    low, high = np.float32(-8), np.float32(7)
    lanes, word = np.empty(16, np.float32), np.empty(1, np.uint32)
    for row in range(values.shape[0]):
        for group in range(scales.shape[1]):
            first, last = group * GROUP, (group + 1) * GROUP
            part, target = values[row, first:last], quantized[row, first:last]
            absmax = _absmax(part)
            if absmax < np.float32(1e-30):
                scales[row, group] = 0
                target[:] = 0
                continue
            best = np.float32(np.inf)
            for step in steps:
                bits = _to_bfloat(absmax / step, word)
                scale = _from_bfloat(bits, word)
                error = _error(part, importance[first:last], scale, low, high, lanes)
                if error < best:
                    best = error
                    scales[row, group] = bits
            factor = np.float32(1) / _from_bfloat(scales[row, group], word)
            for column in range(GROUP):
                target[column] = np.int8(_clip_and_round(part[column] * factor, low, high))
