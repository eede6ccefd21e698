"""Weights times one to eight rows of activations, at the speed at which memory gives the weights.

All functions write `out[:, first:last]` and start no threads: whoever calls them shares the outputs
out. They may be called from Python and from compiled functions. The product of one row of weights
and one row of activations is the same to the bit whatever else is computed with it.

With several rows of activations the columns are taken in stretches, and the outputs in blocks, such
that the activations of a stretch stay in the innermost cache. With one row, weights are read in
the order in which they lie.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.kernel_compile import Number, compiled, entry
from gpt_neox_japanese.quantization.kernel_tiles import (
    GROUP,
    dot_bfloat,
    dot_float,
    dot_int4,
    dot_int8,
)

__all__ = [
    "LARGEST",
    "multiply_bfloat",
    "multiply_float",
    "multiply_int4",
    "multiply_int8",
    "quantize_rows",
]

# An intrinsic's arguments are not those that its Python function has.
_dot_int4: Any = dot_int4
_dot_int8: Any = dot_int8

Floats: TypeAlias = NDArray[np.float32]
Words: TypeAlias = NDArray[np.int16]

LARGEST = 2047  # of a quantised activation: 12 bits with the sign

_SMALLEST = 1e-30  # activations that are nowhere larger than this count as zero
_ROUNDING = 12582912.0  # 1.5 * 2**23: what is added to it becomes whole

_OUTPUTS = 32  # of a block
_COLUMNS = 2048  # of a stretch of floats; part of the result, because it decides the order of sums
_INT8_COLUMNS = 1024
_INT8_COLUMNS_ONE_ROW = 8192  # LARGEST * 127 * 8192 < 2**31
_GROUPS = _COLUMNS // GROUP


@entry
def quantize_rows(x: Floats, q: Words, scales: Floats, corrections: NDArray[np.int32]) -> None:
    """Round every row to whole numbers up to ±LARGEST of its own scale.

    A row with an infinity or a NaN gets the scale NaN, and so will every product with it.

    Args:
        x: float32 `(rows, columns)`.
        q: int16 `(rows, columns)`, becomes `x / scale`, halves to even.
        scales: float32 `(rows,)`.
        corrections: int32 `(rows, ceil(columns / GROUP))`, becomes -8 times the sum of each
            group of `q`, for int4.
    """
    rounding, largest = np.float32(_ROUNDING), np.float32(LARGEST)
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


def _adds_rows(dot: Any, rows: int) -> Any:
    """Make the function that adds `rows` rows' products of a block and a stretch to `totals`."""

    @compiled
    def add(
        weights: Any,
        inputs: Any,
        totals: Any,
        row: Number,
        output: Number,
        end: Number,
        first: Number,
        last: Number,
    ) -> None:
        for index in range(end - output):
            sums = dot(weights, inputs, output + index, row, first, last, rows)
            for offset in range(rows):
                totals[row + offset, index] += sums[offset]

    return add


_add_1_float, _add_2_float = (_adds_rows(dot_float, rows) for rows in (1, 2))
_add_1_bfloat, _add_2_bfloat = (_adds_rows(dot_bfloat, rows) for rows in (1, 2))
_add_1_int8, _add_2_int8, _add_4_int8, _add_8_int8 = (
    _adds_rows(dot_int8, rows) for rows in (1, 2, 4, 8)
)


def _multiplies_floats(dot: Any, add_1: Any, add_2: Any) -> Any:
    @compiled
    def multiply(weights: Any, x: Any, out: Any, first: Number, last: Number) -> None:
        rows, columns = x.shape
        if rows == 1:
            for output in range(first, last):
                total = np.float32(0)
                for start in range(0, columns, _COLUMNS):
                    stop = min(start + _COLUMNS, columns)
                    total += dot(weights, x, output, 0, start, stop, 1)[0]
                out[0, output] = total
            return
        totals = np.empty((rows, _OUTPUTS), np.float32)
        for output in range(first, last, _OUTPUTS):
            end = min(output + _OUTPUTS, last)
            totals[:] = 0
            for start in range(0, columns, _COLUMNS):
                stop = min(start + _COLUMNS, columns)
                for row in range(0, rows - 1, 2):
                    add_2(weights, x, totals, row, output, end, start, stop)
                if rows % 2:
                    add_1(weights, x, totals, rows - 1, output, end, start, stop)
            for row in range(rows):
                for index in range(end - output):
                    out[row, output + index] = totals[row, index]

    return multiply


_float_product = _multiplies_floats(dot_float, _add_1_float, _add_2_float)
_bfloat_product = _multiplies_floats(dot_bfloat, _add_1_bfloat, _add_2_bfloat)


@entry
def multiply_float(weights: Floats, x: Floats, out: Floats, first: Number, last: Number) -> None:
    """float32 weights times float32 activations.

    Args:
        weights: float32 `(outputs, columns)`.
        x: float32 `(rows, columns)`.
        out: float32 `(rows, outputs)`, of which columns `first` to `last` are written.
        first: First output.
        last: Output after the last.
    """
    _float_product(weights, x, out, first, last)


@entry
def multiply_bfloat(
    weights: NDArray[np.uint16], x: Floats, out: Floats, first: Number, last: Number
) -> None:
    """bfloat16 weights, as bit patterns, times float32 activations; otherwise `multiply_float`."""
    _bfloat_product(weights, x, out, first, last)


@entry
def multiply_int8(
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
    rows, columns = q.shape
    if rows == 1:
        for output in range(first, last):
            total = np.int64(0)
            for start in range(0, columns, _INT8_COLUMNS_ONE_ROW):
                stop = min(start + _INT8_COLUMNS_ONE_ROW, columns)
                total += _dot_int8(weights, q, output, 0, start, stop, 1)[0]
            out[0, output] = np.float32(total) * (weight_scales[output] * x_scales[0])
        return
    totals = np.empty((rows, _OUTPUTS), np.int64)
    for output in range(first, last, _OUTPUTS):
        end = min(output + _OUTPUTS, last)
        totals[:] = 0
        for start in range(0, columns, _INT8_COLUMNS):
            stop = min(start + _INT8_COLUMNS, columns)
            row = 0
            while rows - row >= 8:
                _add_8_int8(weights, q, totals, row, output, end, start, stop)
                row += 8
            if rows - row >= 4:
                _add_4_int8(weights, q, totals, row, output, end, start, stop)
                row += 4
            if rows - row >= 2:
                _add_2_int8(weights, q, totals, row, output, end, start, stop)
                row += 2
            if rows > row:
                _add_1_int8(weights, q, totals, row, output, end, start, stop)
        for row in range(rows):
            for index in range(end - output):
                scale = weight_scales[output + index] * x_scales[row]
                out[row, output + index] = np.float32(totals[row, index]) * scale


def _adds_int4_rows(rows: int) -> Any:
    @compiled
    def add(
        packed: Any,
        scales: Any,
        q: Any,
        corrections: Any,
        totals: Any,
        row: Number,
        output: Number,
        end: Number,
        first: Number,
        last: Number,
    ) -> None:
        for index in range(end - output):
            sums = _dot_int4(packed, scales, q, corrections, output + index, row, first, last, rows)
            for offset in range(rows):
                totals[row + offset, index] += sums[offset]

    return add


_add_1_int4, _add_2_int4, _add_4_int4 = (_adds_int4_rows(rows) for rows in (1, 2, 4))


@entry
def multiply_int4(
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
    rows, groups = q.shape[0], group_scales.shape[1]
    if rows == 1:
        for output in range(first, last):
            total = np.float32(0)
            for start in range(0, groups, _GROUPS):
                stop = min(start + _GROUPS, groups)
                total += _dot_int4(packed, group_scales, q, corrections, output, 0, start, stop, 1)[
                    0
                ]
            out[0, output] = total * x_scales[0]
        return
    totals = np.empty((rows, _OUTPUTS), np.float32)
    for output in range(first, last, _OUTPUTS):
        end = min(output + _OUTPUTS, last)
        totals[:] = 0
        for start in range(0, groups, _GROUPS):
            stop = min(start + _GROUPS, groups)
            args = (packed, group_scales, q, corrections, totals)
            row = 0
            while rows - row >= 4:
                _add_4_int4(*args, row, output, end, start, stop)
                row += 4
            if rows - row >= 2:
                _add_2_int4(*args, row, output, end, start, stop)
                row += 2
            if rows > row:
                _add_1_int4(*args, row, output, end, start, stop)
        for row in range(rows):
            for index in range(end - output):
                out[row, output + index] = totals[row, index] * x_scales[row]
