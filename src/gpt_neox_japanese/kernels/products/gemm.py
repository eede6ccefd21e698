"""GEMM: weights times many rows of activations, as fast as the processor multiplies.

Activations are packed once a product: PANEL_ROWS rows make a panel, which keeps its rows side by
side, so that a vector holds one column of all of them. Weights are taken a block at a time, the
outputs of a tile by BLOCK columns; they are widened into a buffer that the L1 cache holds, and each
panel is multiplied by it (`gemm_microkernel`). Meanwhile the next block is prefetched.

A product of one row of weights and one row of activations has the bits that `gemv` gives it,
whatever else is computed beside it. No function here starts threads: their callers split the
outputs among them.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.kernels.compile import Number, compiled, entry
from gpt_neox_japanese.kernels.constants import BLOCK, FLOAT_LANES, GROUP
from gpt_neox_japanese.kernels.llvm import ARM
from gpt_neox_japanese.kernels.products.gemm_microkernel import (
    BUFFER_COLUMNS,
    SPARE_TILES,
    tile_bfloat16,
    tile_float32,
    tile_int4,
    tile_int8,
    tile_outputs,
)
from gpt_neox_japanese.kernels.products.widen import (
    padded_groups,
    scale_int4,
    scale_int8,
    scale_nothing,
    scaled,
    unscaled,
    widen_bfloat16,
    widen_float32,
    widen_int4,
    widen_int8,
)

__all__ = [
    "PANEL_ROWS",
    "gemm_bfloat16",
    "gemm_float32",
    "gemm_int4",
    "gemm_int8",
    "pack_floats",
    "pack_integers",
    "packed_size",
]

Floats: TypeAlias = NDArray[np.float32]
Words: TypeAlias = NDArray[np.int16]

PANEL_ROWS = 16
_MAX_OUTPUTS = 12  # of a tile
_ROWS_AT_ONCE = 128  # whose panels of a block of columns lie in the L2 cache
_COLUMN_MULTIPLE = FLOAT_LANES  # of a panel; the last columns are filled up with zeros
_BITS = FLOAT_LANES.bit_length() - 1
_REVERSED = np.array([int(f"{i:0{_BITS}b}"[::-1], 2) for i in range(FLOAT_LANES)])


@compiled
def _padded_columns(columns: Number) -> Number:
    return -(-columns // _COLUMN_MULTIPLE) * _COLUMN_MULTIPLE


def packed_size(rows: int, columns: int) -> int:
    """How many numbers packed activations take.

    Args:
        rows: Of the activations.
        columns: Of the activations.
    """
    return -(-rows // PANEL_ROWS) * PANEL_ROWS * -(-columns // _COLUMN_MULTIPLE) * _COLUMN_MULTIPLE


@entry
def pack_floats(x: Floats, packed: Floats, first: Number, last: Number) -> None:
    """Pack some rows of activations for products with float32 or bfloat16.

    A panel is, for each block of columns, [lane, step, row]: column `lane + FLOAT_LANES * step` of
    the block, lanes in the order in which the micro-kernel takes them.

    Args:
        x: float32 [rows, columns].
        packed: float32 [packed_size(rows, columns) or more].
        first: First row, a multiple of PANEL_ROWS.
        last: Row after the last, a multiple of PANEL_ROWS or the number of rows.
    """
    columns = x.shape[1]
    at = first * _padded_columns(columns)
    for row in range(first, last, PANEL_ROWS):
        count = min(PANEL_ROWS, last - row)
        for start in range(0, columns, BLOCK):
            steps = -(-min(columns - start, BLOCK) // FLOAT_LANES)
            for part in range(FLOAT_LANES):
                for step in range(steps):
                    column = start + _REVERSED[part] + step * FLOAT_LANES
                    if column < columns:
                        for index in range(count):
                            packed[at + index] = x[row + index, column]
                    if column >= columns or count < PANEL_ROWS:
                        filled = count if column < columns else 0
                        packed[at + filled : at + PANEL_ROWS] = 0
                    at += PANEL_ROWS


@entry
def pack_integers(q: Words, packed: Words, first: Number, last: Number) -> None:
    """Pack some rows of quantized activations for products with int8 or int4.

    A panel is [pair of columns, row, 2], on Arm [pair of columns, 2, row].

    Args:
        q: int16 [rows, columns].
        packed: int16 [packed_size(rows, columns) or more].
        first: First row, a multiple of PANEL_ROWS.
        last: Row after the last, a multiple of PANEL_ROWS or the number of rows.
    """
    columns = q.shape[1]
    next_row, next_column = (1, PANEL_ROWS) if ARM else (2, 1)
    for row in range(first, last, PANEL_ROWS):
        count = min(PANEL_ROWS, last - row)
        panel = row * _padded_columns(columns)
        if count < PANEL_ROWS or columns % 2:
            packed[panel : panel + _padded_columns(columns) * PANEL_ROWS] = 0
        for column in range(columns):
            at = panel + column // 2 * 2 * PANEL_ROWS + column % 2 * next_column
            for index in range(count):
                packed[at + index * next_row] = q[row + index, column]


def _make_gemm(
    tile: Any, scale: Any, widen: Any, finish: Any, number: Any, total: Any, steps: Any
) -> Any:
    """Make the GEMM of a format.

    Args:
        tile: Its micro-kernel.
        scale: Prepares the scales of some outputs.
        widen: Writes a block of weights into a buffer.
        finish: `(total, scale of the output, scale of the row)` → element of the result.
        number: What weights are widened to.
        total: Type of sums over all blocks.
        steps: Columns of a block → what the micro-kernel counts.
    """
    size, total_size = np.dtype(number).itemsize, np.dtype(total).itemsize

    @compiled
    def multiply(
        matrix: Any,
        packed: Any,
        x_scales: Any,
        columns: Number,
        out: Any,
        first: Number,
        last: Number,
    ) -> None:
        weights, rows, padded = matrix[0], len(out), _padded_columns(columns)
        height: int = tile_outputs(PANEL_ROWS, size)  # type: ignore[call-arg]
        buffer = np.empty((_MAX_OUTPUTS, BUFFER_COLUMNS), number)
        scales = np.empty(_MAX_OUTPUTS, np.float32)
        multipliers = np.empty((_MAX_OUTPUTS, padded_groups(columns // GROUP)), np.int16)
        totals = np.empty((_MAX_OUTPUTS, _ROWS_AT_ONCE), total)
        spare = np.empty(SPARE_TILES * _MAX_OUTPUTS * PANEL_ROWS, np.float32)
        for begin in range(0, rows, _ROWS_AT_ONCE):
            until = min(begin + _ROWS_AT_ONCE, rows)
            for output in range(first, last, height):
                end = min(output + height, last)
                scale(matrix, output, end, scales, multipliers)
                totals[:] = 0
                for start in range(0, columns, BLOCK):
                    stop = min(start + BLOCK, columns)
                    widen(matrix, output, end, start, stop, buffer, multipliers)
                    ahead = _next_block(weights, output, end, last, stop, columns)
                    for row in range(begin, until, PANEL_ROWS):
                        tile(
                            packed.ctypes.data + (row * padded + start * PANEL_ROWS) * size,
                            buffer.ctypes.data,
                            totals.ctypes.data + (row - begin) * total_size,
                            spare.ctypes.data,
                            ahead,
                            totals.strides[0],
                            weights.strides[0],
                            steps(stop - start),
                            PANEL_ROWS,
                        )
                        ahead = 0
                for row in range(begin, until):
                    for index in range(end - output):
                        value = totals[index, row - begin]
                        value = finish(value, scales[index], x_scales[row])
                        out[row, output + index] = value

    return multiply


@compiled
def _next_block(
    weights: Any, output: Number, following: Number, last: Number, stop: Number, columns: Number
) -> Number:
    """Where the stored weights lie that are widened next; 0 if there are none."""
    if stop == columns:
        output, stop = following, 0
    if output >= last:
        return 0
    return weights.ctypes.data + output * weights.strides[0] + stop * weights.strides[0] // columns


@compiled
def _steps_of_lane(columns: Number) -> Number:
    return -(-columns // FLOAT_LANES)


@compiled
def _pairs(columns: Number) -> Number:
    return -(-columns // 2)


_float32 = _make_gemm(
    tile_float32, scale_nothing, widen_float32, unscaled, np.float32, np.float32, _steps_of_lane
)
_bfloat16 = _make_gemm(
    tile_bfloat16, scale_nothing, widen_bfloat16, unscaled, np.float32, np.float32, _steps_of_lane
)
_int8 = _make_gemm(tile_int8, scale_int8, widen_int8, scaled, np.int16, np.int64, _pairs)
_int4 = _make_gemm(tile_int4, scale_int4, widen_int4, scaled, np.int16, np.int64, _pairs)


@entry
def gemm_float32(weights: Floats, packed: Floats, out: Floats, first: Number, last: Number) -> None:
    """float32 weights times float32 activations.

    Args:
        weights: float32 [outputs, columns].
        packed: By `pack_floats`.
        out: float32 [rows, outputs], of which columns `first` to `last` are written.
        first: First output.
        last: Output after the last.
    """
    _float32((weights,), packed, out[:, 0], weights.shape[1], out, first, last)


@entry
def gemm_bfloat16(
    weights: NDArray[np.uint16], packed: Floats, out: Floats, first: Number, last: Number
) -> None:
    """bfloat16 weights times float32 activations.

    Args:
        weights: bfloat16 as bit patterns, uint16 [outputs, columns].
        packed: By `pack_floats`.
        out: float32 [rows, outputs], of which columns `first` to `last` are written.
        first: First output.
        last: Output after the last.
    """
    _bfloat16((weights,), packed, out[:, 0], weights.shape[1], out, first, last)


@entry
def gemm_int8(
    weights: NDArray[np.int8],
    weight_scales: Floats,
    packed: Words,
    x_scales: Floats,
    out: Floats,
    first: Number,
    last: Number,
) -> None:
    """int8 weights times activations quantized by `quantize_rows`; sums are exact, then rounded.

    Args:
        weights: int8 [outputs, columns], not -128.
        weight_scales: float32 [outputs].
        packed: By `pack_integers`.
        x_scales: float32 [rows].
        out: float32 [rows, outputs], of which columns `first` to `last` are written.
        first: First output.
        last: Output after the last.
    """
    matrix = weights, weight_scales
    _int8(matrix, packed, x_scales, weights.shape[1], out, first, last)


@entry
def gemm_int4(
    weights: NDArray[np.uint8],
    group_scales: NDArray[np.uint16],
    packed: Words,
    x_scales: Floats,
    out: Floats,
    first: Number,
    last: Number,
) -> None:
    """int4 weights in groups, times activations quantized by `quantize_rows`.

    Args:
        weights: uint8 [outputs, columns / 2]; `quantization.int4.pack_int4` tells the order.
        group_scales: bfloat16 as bit patterns, uint16 [outputs, columns / GROUP].
        packed: By `pack_integers`.
        x_scales: float32 [rows].
        out: float32 [rows, outputs], of which columns `first` to `last` are written.
        first: First output.
        last: Output after the last.
    """
    matrix = weights, group_scales
    _int4(matrix, packed, x_scales, weights.shape[1] * 2, out, first, last)
