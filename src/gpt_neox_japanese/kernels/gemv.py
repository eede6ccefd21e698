"""Weights times one to eight rows of activations, at the speed at which memory gives the weights.

All functions write `out[:, first:last]` and start no threads: whoever calls them shares the outputs
out. They may be called from Python and from compiled functions. The product of one row of weights
and one row of activations is the same to the bit whatever else is computed with it.

With one row of activations, weights are read in the order in which they lie. With several, outputs
are taken in blocks and columns in stretches, such that the activations of a stretch stay in the
innermost cache and the weights of a block in the next; while one block is multiplied, the next is
on its way from memory.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.kernels.compile import Number, compiled, entry
from gpt_neox_japanese.kernels.constants import GROUP, QMAX
from gpt_neox_japanese.kernels.microkernel import (
    dot_bfloat,
    dot_float,
    dot_int4,
    dot_int8,
)

__all__ = [
    "gemv_bfloat16",
    "gemv_float32",
    "gemv_int4",
    "gemv_int8",
    "quantize_rows",
]

Floats: TypeAlias = NDArray[np.float32]
Words: TypeAlias = NDArray[np.int16]


_SMALLEST = 1e-30  # activations that are nowhere larger than this count as zero
_ROUNDING = 12582912.0  # 1.5 * 2**23: what is added to it becomes whole

_OUTPUTS = 32  # of a block
_AHEAD = 1024  # bytes between what is read in order and what is asked for

_COLUMNS = 2048  # of a stretch of floats; part of the result, because it decides the order of sums
_INT8_COLUMNS = 2560  # of a stretch: four rows of activations take 20 KB of the innermost cache
_INT8_COLUMNS_ONE_ROW = 8192  # QMAX * 127 * 8192 < 2**31
_GROUPS = _COLUMNS // GROUP


@entry
def quantize_rows(x: Floats, q: Words, scales: Floats, corrections: NDArray[np.int32]) -> None:
    """Round every row to whole numbers up to ±QMAX of its own scale.

    A row with an infinity or a NaN gets the scale NaN, and so will every product with it.

    Args:
        x: float32 `(rows, columns)`.
        q: int16 `(rows, columns)`, becomes `x / scale`, halves to even.
        scales: float32 `(rows,)`.
        corrections: int32 `(rows, ceil(columns / GROUP))`, becomes -8 times the sum of each
            group of `q`, for int4.
    """
    rounding, largest = np.float32(_ROUNDING), np.float32(QMAX)
    for row in range(x.shape[0]):
        values = x[row]
        bits = values.view(np.uint32)
        peak = np.uint32(0)  # floats without sign are ordered as their bits are
        for column in range(bits.size):
            peak = max(peak, bits[column] & np.uint32(0x7FFFFFFF))
        top = np.empty(1, np.float32)
        top.view(np.uint32)[0] = peak
        if not np.isfinite(top[0]) or top[0] < np.float32(_SMALLEST):
            scales[row] = np.float32(0) if np.isfinite(top[0]) else np.float32(np.nan)
            q[row] = 0
            corrections[row] = 0
            continue
        scales[row] = top[0] / largest
        factor = largest / top[0]
        for column in range(values.size):
            q[row, column] = np.int16((values[column] * factor + rounding) - rounding)
        for group in range(corrections.shape[1]):
            total = np.int32(0)
            for column in range(group * GROUP, min((group + 1) * GROUP, values.size)):
                total += np.int32(q[row, column])
            corrections[row, group] = np.int32(-8) * total


def _adds_tiles(dot: Any, outputs: int, rows: int) -> Any:
    """Make the function that adds products of a block and a stretch to `totals`.

    The number of outputs of the block is a multiple of `outputs`.
    """

    @compiled
    def add(
        matrix: Any,
        inputs: Any,
        totals: Any,
        row: Number,
        output: Number,
        end: Number,
        first: Number,
        last: Number,
        ahead: Number,
    ) -> None:
        for index in range(0, end - output, outputs):
            sums = dot(matrix, inputs, output + index, row, first, last, ahead, outputs, rows)
            for below in range(outputs):
                for offset in range(rows):
                    totals[row + offset, index + below] += sums[below * rows + offset]

    return add


def _multiplies(
    dot: Any, finish: Any, total: Any, tile: tuple[int, int], stretch: int, stretch_of_one_row: int
) -> Any:
    """Make the product of a format.

    Args:
        dot: Its function of `tiles`.
        finish: `(total, matrix, inputs, output, row)` → element of the result.
        total: Type of sums over several stretches.
        tile: Outputs and rows that are computed together, as many as there are registers for.
        stretch: Columns, or groups, that are computed together.
        stretch_of_one_row: The same for one row.
    """
    outputs, max_rows = tile
    add_most, add_2, add_1 = (_adds_tiles(dot, outputs, rows) for rows in (max_rows, 2, 1))

    @compiled
    def multiply_row(
        matrix: Any, inputs: Any, out: Any, row: Number, first: Number, last: Number, size: Number
    ) -> None:
        for output in range(first, last):
            sum_ = total(0)
            for start in range(0, size, stretch_of_one_row):
                stop = min(start + stretch_of_one_row, size)
                sum_ += dot(matrix, inputs, output, row, start, stop, _AHEAD, 1, 1)[0]
            out[row, output] = finish(sum_, matrix, inputs, output, row)

    @compiled
    def multiply(
        matrix: Any, inputs: Any, out: Any, first: Number, last: Number, size: Number
    ) -> None:
        rows = len(out)
        if rows == 1:
            multiply_row(matrix, inputs, out, 0, first, last, size)
            return
        totals = np.empty((rows, _OUTPUTS), total)
        for output in range(first, last, _OUTPUTS):
            end = min(output + _OUTPUTS, last)
            if (end - output) % outputs:
                end -= 1
                for row in range(rows):
                    multiply_row(matrix, inputs, out, row, end, end + 1, size)
            ahead = _OUTPUTS * matrix[0].strides[0] if end < last else 0
            totals[:] = 0
            for start in range(0, size, stretch):
                stop = min(start + stretch, size)
                row = 0
                while rows - row >= max_rows:
                    add_most(matrix, inputs, totals, row, output, end, start, stop, ahead)
                    row += max_rows
                if rows - row >= 2:
                    add_2(matrix, inputs, totals, row, output, end, start, stop, ahead)
                    row += 2
                if rows > row:
                    add_1(matrix, inputs, totals, row, output, end, start, stop, ahead)
            for row in range(rows):
                for index in range(end - output):
                    value = finish(totals[row, index], matrix, inputs, output + index, row)
                    out[row, output + index] = value

    return multiply


@compiled
def _sum_alone(total: Number, matrix: Any, inputs: Any, output: Number, row: Number) -> Number:
    return total


@compiled
def _scale_int8(total: Number, matrix: Any, inputs: Any, output: Number, row: Number) -> Number:
    return np.float32(total) * (matrix[1][output] * inputs[1][row])


@compiled
def _scale_int4(total: Number, matrix: Any, inputs: Any, output: Number, row: Number) -> Number:
    return total * inputs[2][row]


_float_product, _bfloat_product = (
    _multiplies(dot, _sum_alone, np.float32, (1, 2), _COLUMNS, _COLUMNS)
    for dot in (dot_float, dot_bfloat)
)
_int8_product = _multiplies(
    dot_int8, _scale_int8, np.int64, (2, 4), _INT8_COLUMNS, _INT8_COLUMNS_ONE_ROW
)
_int4_product = _multiplies(dot_int4, _scale_int4, np.float32, (2, 4), _GROUPS, _GROUPS)


@entry
def gemv_float32(weights: Floats, x: Floats, out: Floats, first: Number, last: Number) -> None:
    """float32 weights times float32 activations.

    Args:
        weights: float32 `(outputs, columns)`.
        x: float32 `(rows, columns)`.
        out: float32 `(rows, outputs)`, of which columns `first` to `last` are written.
        first: First output.
        last: Output after the last.
    """
    _float_product((weights,), (x,), out, first, last, x.shape[1])


@entry
def gemv_bfloat16(
    weights: NDArray[np.uint16], x: Floats, out: Floats, first: Number, last: Number
) -> None:
    """bfloat16 weights, as bit patterns, times float32 activations; otherwise `gemv_float32`."""
    _bfloat_product((weights,), (x,), out, first, last, x.shape[1])


@entry
def gemv_int8(
    weights: NDArray[np.int8],
    weight_scales: Floats,
    q: Words,
    x_scales: Floats,
    out: Floats,
    first: Number,
    last: Number,
) -> None:
    """int8 weights times activations of `quantize_rows`. Sums are exact, then rounded once.

    Args:
        weights: int8 `(outputs, columns)`, not -128.
        weight_scales: float32 `(outputs,)`.
        q: int16 `(rows, columns)`.
        x_scales: float32 `(rows,)`.
        out: float32 `(rows, outputs)`, of which columns `first` to `last` are written.
        first: First output.
        last: Output after the last.
    """
    _int8_product((weights, weight_scales), (q, x_scales), out, first, last, q.shape[1])


@entry
def gemv_int4(
    packed: NDArray[np.uint8],
    group_scales: NDArray[np.uint16],
    q: Words,
    x_scales: Floats,
    corrections: NDArray[np.int32],
    out: Floats,
    first: Number,
    last: Number,
) -> None:
    """int4 weights in groups, times activations of `quantize_rows`.

    Args:
        packed: uint8 `(outputs, columns / 2)`; `reference.pack_int4` tells the order.
        group_scales: bfloat16 as bit patterns, uint16 `(outputs, columns / GROUP)`.
        q: int16 `(rows, columns)`; columns must be a multiple of GROUP.
        x_scales: float32 `(rows,)`.
        corrections: int32 `(rows, columns / GROUP)`.
        out: float32 `(rows, outputs)`, of which columns `first` to `last` are written.
        first: First output.
        last: Output after the last.
    """
    matrix, inputs = (packed, group_scales), (q, corrections, x_scales)
    _int4_product(matrix, inputs, out, first, last, group_scales.shape[1])
