"""GEMV: weights times one to eight rows of activations, at the speed of memory.

All functions write `out[:, first:last]` and start no threads: their callers split the outputs among
threads. They may be called from Python and from compiled functions. The product of one row of
weights and one row of activations is the same to the bit whatever else is computed with it.

With one row of activations, weights are read in the order in which they lie. With several, the
outputs are taken in panels and the columns in blocks, such that the activations of a block stay in
the L1 cache and the weights of a panel in the L2 cache; while one panel is multiplied, the next is
prefetched. A panel is computed tile by tile by the micro-kernel of its format.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.kernels.compile import Number, compiled, entry
from gpt_neox_japanese.kernels.constants import GROUP, QMAX
from gpt_neox_japanese.kernels.microkernel import (
    dot_bfloat16,
    dot_float32,
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


_MIN_ABSMAX = 1e-30  # a row whose largest activation is smaller counts as zero
_ROUNDING = 12582912.0  # 1.5 * 2**23: what is added to it becomes whole

_PANEL_OUTPUTS = 32
_PREFETCH_BYTES = 1024  # how far ahead of what is read in order

_BLOCK_COLUMNS = 2048  # of floats; part of the result, because it decides the order of sums
_INT8_BLOCK_COLUMNS = 2560  # four rows of activations take 20 KB of the L1 cache
_INT8_BLOCK_COLUMNS_ONE_ROW = 8192  # QMAX * 127 * 8192 < 2**31
_BLOCK_GROUPS = _BLOCK_COLUMNS // GROUP


@entry
def quantize_rows(x: Floats, q: Words, scales: Floats, corrections: NDArray[np.int32]) -> None:
    """Quantize every row of activations to integers up to ±QMAX with a scale of its own.

    A row with an infinity or a NaN gets the scale NaN, and so will every product with it.

    Args:
        x: float32 [rows, columns].
        q: int16 [rows, columns], becomes `x / scale`, halves to even.
        scales: float32 [rows].
        corrections: int32 [rows, ceil(columns / GROUP)], becomes -8 times the sum of each
            group of `q`, for int4.
    """
    rounding, qmax = np.float32(_ROUNDING), np.float32(QMAX)
    for row in range(x.shape[0]):
        values = x[row]
        bits = values.view(np.uint32)
        peak = np.uint32(0)  # floats without sign are ordered as their bits are
        for column in range(bits.size):
            peak = max(peak, bits[column] & np.uint32(0x7FFFFFFF))
        absmax = np.empty(1, np.float32)
        absmax.view(np.uint32)[0] = peak
        if not np.isfinite(absmax[0]) or absmax[0] < np.float32(_MIN_ABSMAX):
            scales[row] = np.float32(0) if np.isfinite(absmax[0]) else np.float32(np.nan)
            q[row] = 0
            corrections[row] = 0
            continue
        scales[row] = absmax[0] / qmax
        factor = qmax / absmax[0]
        for column in range(values.size):
            q[row, column] = np.int16((values[column] * factor + rounding) - rounding)
        for group in range(corrections.shape[1]):
            total = np.int32(0)
            for column in range(group * GROUP, min((group + 1) * GROUP, values.size)):
                total += np.int32(q[row, column])
            corrections[row, group] = np.int32(-8) * total


def _make_tile_kernel(dot: Any, outputs: int, rows: int) -> Any:
    """Make the loop over a panel's tiles; it adds the products of a block to `totals`.

    The number of outputs of the panel is a multiple of `outputs`.

    Args:
        dot: The micro-kernel.
        outputs: Height of a tile.
        rows: Width of a tile.
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


def _make_gemv(
    dot: Any, finish: Any, total: Any, tile: tuple[int, int], block: int, block_of_one_row: int
) -> Any:
    """Make the GEMV of a format.

    Args:
        dot: Its micro-kernel.
        finish: `(total, matrix, inputs, output, row)` → element of the result.
        total: Type of sums over several blocks.
        tile: Outputs and rows of a tile, as many as there are registers for.
        block: Columns, or groups, of a block.
        block_of_one_row: The same with one row of activations.
    """
    outputs, max_rows = tile
    tiles = {rows: _make_tile_kernel(dot, outputs, rows) for rows in {max_rows, 2, 1}}
    add_max_rows, add_2, add_1 = tiles[max_rows], tiles[2], tiles[1]

    @compiled
    def multiply_row(
        matrix: Any, inputs: Any, out: Any, row: Number, first: Number, last: Number, size: Number
    ) -> None:
        for output in range(first, last):
            sum_ = total(0)
            for start in range(0, size, block_of_one_row):
                stop = min(start + block_of_one_row, size)
                sum_ += dot(matrix, inputs, output, row, start, stop, _PREFETCH_BYTES, 1, 1)[0]
            out[row, output] = finish(sum_, matrix, inputs, output, row)

    @compiled
    def multiply(
        matrix: Any, inputs: Any, out: Any, first: Number, last: Number, size: Number
    ) -> None:
        rows = len(out)
        if rows == 1:
            multiply_row(matrix, inputs, out, 0, first, last, size)
            return
        totals = np.empty((rows, _PANEL_OUTPUTS), total)
        for output in range(first, last, _PANEL_OUTPUTS):
            end = min(output + _PANEL_OUTPUTS, last)
            if (end - output) % outputs:
                end -= 1
                for row in range(rows):
                    multiply_row(matrix, inputs, out, row, end, end + 1, size)
            ahead = _PANEL_OUTPUTS * matrix[0].strides[0] if end < last else 0
            totals[:] = 0
            for start in range(0, size, block):
                stop = min(start + block, size)
                row = 0
                while rows - row >= max_rows:
                    add_max_rows(matrix, inputs, totals, row, output, end, start, stop, ahead)
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
def _unscaled(total: Number, matrix: Any, inputs: Any, output: Number, row: Number) -> Number:
    return total


@compiled
def _scale_int8(total: Number, matrix: Any, inputs: Any, output: Number, row: Number) -> Number:
    return np.float32(total) * (matrix[1][output] * inputs[1][row])


@compiled
def _scale_int4(total: Number, matrix: Any, inputs: Any, output: Number, row: Number) -> Number:
    return total * inputs[2][row]


_product_float32, _product_bfloat16 = (
    _make_gemv(dot, _unscaled, np.float32, (1, 2), _BLOCK_COLUMNS, _BLOCK_COLUMNS)
    for dot in (dot_float32, dot_bfloat16)
)
_product_int8 = _make_gemv(
    dot_int8, _scale_int8, np.int64, (2, 4), _INT8_BLOCK_COLUMNS, _INT8_BLOCK_COLUMNS_ONE_ROW
)
_product_int4 = _make_gemv(dot_int4, _scale_int4, np.float32, (2, 4), _BLOCK_GROUPS, _BLOCK_GROUPS)


@entry
def gemv_float32(weights: Floats, x: Floats, out: Floats, first: Number, last: Number) -> None:
    """float32 weights times float32 activations.

    Args:
        weights: float32 [outputs, columns].
        x: float32 [rows, columns].
        out: float32 [rows, outputs], of which columns `first` to `last` are written.
        first: First output.
        last: Output after the last.
    """
    _product_float32((weights,), (x,), out, first, last, x.shape[1])


@entry
def gemv_bfloat16(
    weights: NDArray[np.uint16], x: Floats, out: Floats, first: Number, last: Number
) -> None:
    """bfloat16 weights times float32 activations.

    Args:
        weights: bfloat16 as bit patterns, uint16 [outputs, columns].
        x: float32 [rows, columns].
        out: float32 [rows, outputs], of which columns `first` to `last` are written.
        first: First output.
        last: Output after the last.
    """
    _product_bfloat16((weights,), (x,), out, first, last, x.shape[1])


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
    """int8 weights times activations quantized by `quantize_rows`; sums are exact, then rounded.

    Args:
        weights: int8 [outputs, columns], not -128.
        weight_scales: float32 [outputs].
        q: int16 [rows, columns].
        x_scales: float32 [rows].
        out: float32 [rows, outputs], of which columns `first` to `last` are written.
        first: First output.
        last: Output after the last.
    """
    _product_int8((weights, weight_scales), (q, x_scales), out, first, last, q.shape[1])


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
    """int4 weights in groups, times activations quantized by `quantize_rows`.

    Args:
        packed: uint8 [outputs, columns / 2]; `quantization.int4.pack_int4` tells the order.
        group_scales: bfloat16 as bit patterns, uint16 [outputs, columns / GROUP].
        q: int16 [rows, columns]; columns must be a multiple of GROUP.
        x_scales: float32 [rows].
        corrections: int32 [rows, columns / GROUP].
        out: float32 [rows, outputs], of which columns `first` to `last` are written.
        first: First output.
        last: Output after the last.
    """
    matrix, inputs = (packed, group_scales), (q, corrections, x_scales)
    _product_int4(matrix, inputs, out, first, last, group_scales.shape[1])
