"""GEMV: weights times one to eight rows of activations, at the speed of memory.

All functions write `out[:, first:last]` and start no threads: their callers split the outputs among
threads. They may be called from Python and from compiled functions. The product of one row of
weights and one row of activations is the same to the bit whatever else is computed with it.

With one row of activations, weights are read in the order in which they lie. With several, some
outputs and some columns are taken at a time, such that the activations stay in the L1 cache, and
the weights of the next outputs are prefetched (`few_rows`). More rows are for `gemm`.

The order of sums, for floats: columns of a block are added to FLOAT_LANES sums, one after the
other; these are added in halves, and blocks one by one. In int4 the sums are those of whole groups,
exact and then scaled; eight of a block are added in halves, and blocks one by one.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.kernels.compile import Number, compiled, entry
from gpt_neox_japanese.kernels.constants import BLOCK, GROUP, MAX_FEW_ROWS, QMAX
from gpt_neox_japanese.kernels.few_rows import (
    FEW_ROWS,
    few_bfloat16,
    few_float32,
    few_int4,
    few_int8,
    few_outputs,
)
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

_INT8_BLOCK_COLUMNS = 8192  # QMAX * 127 * 8192 < 2**31
_INT8_BLOCK_OF_FEW = 2560  # four rows of activations take 20 KB of the L1 cache
_OUTPUTS = 32  # whose sums of a few rows wait until all columns are read


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


def _make_gemv(dot: Any, finish: Any, total: Any, block: int) -> Any:
    """Make the GEMV of a format.

    Args:
        dot: Its micro-kernel.
        finish: `(total, matrix, inputs, output, row)` → element of the result.
        total: Type of sums over several blocks.
        block: Columns, or groups, of a block.
    """

    @compiled
    def multiply(
        matrix: Any, inputs: Any, out: Any, first: Number, last: Number, size: Number
    ) -> None:
        for output in range(first, last):
            sum_ = total(0)
            for start in range(0, size, block):
                stop = min(start + block, size)
                sum_ += dot(matrix, inputs, output, start, stop)
            out[0, output] = finish(sum_, matrix, inputs, output, 0)

    return multiply


def _make_few(
    few: Any, finish: Any, total: Any, parts: Any, block: int, *, is_plain: bool = True
) -> Any:
    """Make the product of a format with two to eight rows.

    Args:
        few: Its micro-kernel.
        finish: As of `_make_gemv`.
        total: Type of sums over several blocks.
        parts: `(first column, columns)` → bytes of weights, bytes of scales, and what is counted.
        block: Columns of a block.
        is_plain: Whether the format has no groups.
    """

    def make(rows: int) -> Any:
        @compiled
        def multiply(
            matrix: Any, inputs: Any, out: Any, first: Number, last: Number, columns: Number
        ) -> None:
            weights, x = matrix[0], inputs[0]
            scales, scales_stride = weights.ctypes.data, 0
            if len(matrix) > 1:
                scales, scales_stride = matrix[-1].ctypes.data, matrix[-1].strides[0]
            stride = weights.strides[0]
            at_once: int = few_outputs() if is_plain else 1  # type: ignore[call-arg]
            totals = np.empty((_OUTPUTS + 1, MAX_FEW_ROWS), total)
            for output in range(first, last, _OUTPUTS):
                end = min(output + _OUTPUTS, last)
                ahead = _OUTPUTS * stride if end < last else 0
                totals[:] = 0
                for start in range(0, columns, block):
                    at, scales_at, count = parts(start, min(columns - start, block))
                    for row in range(0, len(out), rows):
                        for index in range(0, end - output, at_once):
                            few(
                                weights.ctypes.data + (output + index) * stride + at,
                                stride if output + index + 1 < end else 0,
                                scales + (output + index) * scales_stride + scales_at,
                                x.ctypes.data + row * x.strides[0] + start * x.strides[1],
                                x.strides[0],
                                len(out) - row,
                                totals.ctypes.data + index * totals.strides[0] + row * item,
                                count,
                                ahead,
                                rows,
                            )
                for row in range(len(out)):
                    for index in range(end - output):
                        value = finish(totals[index, row], matrix, inputs, output + index, row)
                        out[row, output + index] = value

        return multiply

    item = np.dtype(total).itemsize
    multiply_4 = make(FEW_ROWS)
    if is_plain:
        return multiply_4
    multiply_8 = make(MAX_FEW_ROWS)

    @compiled
    def multiply(
        matrix: Any, inputs: Any, out: Any, first: Number, last: Number, columns: Number
    ) -> None:
        if len(out) > FEW_ROWS:
            multiply_8(matrix, inputs, out, first, last, columns)
        else:
            multiply_4(matrix, inputs, out, first, last, columns)

    return multiply


@compiled
def _parts_float32(start: Number, columns: Number) -> tuple[Number, Number, Number]:
    return 4 * start, 0, columns


@compiled
def _parts_bfloat16(start: Number, columns: Number) -> tuple[Number, Number, Number]:
    return 2 * start, 0, columns


@compiled
def _parts_int8(start: Number, columns: Number) -> tuple[Number, Number, Number]:
    return start, 0, columns


@compiled
def _parts_int4(start: Number, columns: Number) -> tuple[Number, Number, Number]:
    return start // 2, start // GROUP * 2, columns // GROUP


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
    _make_gemv(dot, _unscaled, np.float32, BLOCK) for dot in (dot_float32, dot_bfloat16)
)
_product_int8 = _make_gemv(dot_int8, _scale_int8, np.int64, _INT8_BLOCK_COLUMNS)
_product_int4 = _make_gemv(dot_int4, _scale_int4, np.float32, BLOCK // GROUP)


_few_float32 = _make_few(few_float32, _unscaled, np.float32, _parts_float32, BLOCK)
_few_bfloat16 = _make_few(few_bfloat16, _unscaled, np.float32, _parts_bfloat16, BLOCK)
_few_int8 = _make_few(few_int8, _scale_int8, np.int64, _parts_int8, _INT8_BLOCK_OF_FEW)
_few_int4 = _make_few(few_int4, _scale_int4, np.float32, _parts_int4, BLOCK, is_plain=False)


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
    if len(out) == 1:
        _product_float32((weights,), (x,), out, first, last, x.shape[1])
    else:
        _few_float32((weights,), (x,), out, first, last, x.shape[1])


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
    if len(out) == 1:
        _product_bfloat16((weights,), (x,), out, first, last, x.shape[1])
    else:
        _few_bfloat16((weights,), (x,), out, first, last, x.shape[1])


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
    if len(out) == 1:
        _product_int8((weights, weight_scales), (q, x_scales), out, first, last, q.shape[1])
    else:
        _few_int8((weights, weight_scales), (q, x_scales), out, first, last, q.shape[1])


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
    if len(out) == 1:
        _product_int4(matrix, inputs, out, first, last, group_scales.shape[1])
    else:
        _few_int4(matrix, inputs, out, first, last, q.shape[1])
