"""GEMV: weights times one to 32 rows of activations, at the speed of memory.

All functions write `out[:, first:last]` and start no threads: their callers split the outputs among
threads. They may be called from Python and from compiled functions. The product of one row of
weights and one row of activations is the same to the bit whatever else is computed with it.

With one row of activations, weights are read in the order in which they lie. With several, some
outputs and some columns are taken at a time, such that the activations stay in the L1 cache, and
the weights of the next outputs are prefetched (`few_rows`). More rows are for `gemm`.

The order of sums, for floats: columns of a block are added to FLOAT_LANES sums, one after the
other; these are added in halves, and blocks one by one. Sums of integers are exact.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.kernels.compile import Number, compiled, entry
from gpt_neox_japanese.kernels.constants import BLOCK, GROUP, QMAX
from gpt_neox_japanese.kernels.products.few_rows import (
    FEW_ROWS,
    MORE_ROWS,
    few_bfloat16,
    few_float32,
    few_int4,
    few_int8,
    few_outputs,
    more_int4,
)
from gpt_neox_japanese.kernels.products.microkernel import (
    dot_bfloat16,
    dot_float32,
    dot_int4,
    dot_int8,
)
from gpt_neox_japanese.kernels.products.widen import (
    padded_groups,
    scale_int4,
    scale_int8,
    scale_nothing,
    scaled,
    unscaled,
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

# A block's sums fit in 32 bits: in int8 those of all columns; in int4, where a lane takes up to 160
# products (`widen`), those of each of 16 lanes.
_INT8_BLOCK = 8192
_INT_BLOCK_OF_FEW = 2560
_OUTPUTS_OF_ONE = 8  # whose scales are prepared at once for one row
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
    """Make the product of a format without groups with one row.

    Args:
        dot: Its micro-kernel.
        finish: `(total, matrix, scale of the row, output)` → element of the result.
        total: Type of sums over several blocks.
        block: Columns of a block.
    """

    @compiled
    def multiply(matrix: Any, x: Any, x_scales: Any, out: Any, first: Number, last: Number) -> None:
        for output in range(first, last):
            sum_ = total(0)
            for start in range(0, x.shape[1], block):
                stop = min(start + block, x.shape[1])
                sum_ += dot(matrix, (x,), output, start, stop)
            out[0, output] = finish(sum_, matrix, x_scales[0], output)

    return multiply


@compiled
def _plain(total: Number, matrix: Any, x_scale: Number, output: Number) -> Number:
    return total


@compiled
def _scaled_int8(total: Number, matrix: Any, x_scale: Number, output: Number) -> Number:
    return scaled(total, matrix[1][output], x_scale)


@compiled
def _product_int4(
    matrix: Any,
    q: Any,
    corrections: Any,
    x_scales: Any,
    out: Any,
    first: Number,
    last: Number,
) -> None:
    """One row of activations times int4 weights."""
    groups = corrections.shape[1]
    scales = np.empty(_OUTPUTS_OF_ONE, np.float32)
    multipliers = np.empty((_OUTPUTS_OF_ONE, padded_groups(groups)), np.int16)
    for begin in range(first, last, _OUTPUTS_OF_ONE):
        end = min(begin + _OUTPUTS_OF_ONE, last)
        scale_int4(matrix, begin, end, scales, multipliers)
        for output in range(begin, end):
            inputs = q, corrections, multipliers[output - begin :]
            total = dot_int4(matrix[:1], inputs, output, 0, groups) >> 4
            out[0, output] = scaled(total, scales[output - begin], x_scales[0])


def _make_few(
    few: Any, scale: Any, place: Any, finish: Any, total: Any, block: int, more: Any = None
) -> Any:
    """Make the product of a format with several rows.

    Args:
        few: Its micro-kernel.
        scale: Prepares the scales of some outputs.
        place: `(weights, first column, columns)` → bytes from the start of a row of weights to the
            column, and what is counted.
        finish: `(total, scale of the output, scale of the row)` → element of the result.
        total: Type of sums over several blocks.
        block: Columns of a block.
        more: The micro-kernel of MORE_ROWS rows, where weights cost so much to prepare that these
            should share it; None where they do not.
    """

    @compiled
    def multiply(matrix: Any, x: Any, x_scales: Any, out: Any, first: Number, last: Number) -> None:
        weights, (rows, columns) = matrix[0], x.shape
        stride = weights.strides[0]
        at_once: int = few_outputs()  # type: ignore[call-arg]
        row_step = MORE_ROWS if has_more and at_once == 2 else FEW_ROWS
        totals = np.empty((_OUTPUTS + 1, -(-rows // MORE_ROWS) * MORE_ROWS), total)
        scales = np.empty(_OUTPUTS, np.float32)
        multipliers = np.empty((_OUTPUTS + 1, padded_groups(columns // GROUP)), np.int16)
        for output in range(first, last, _OUTPUTS):
            end = min(output + _OUTPUTS, last)
            ahead = _OUTPUTS * stride if end < last else 0
            scale(matrix, output, end, scales, multipliers)
            totals[:] = 0
            for start in range(0, columns, block):
                at, count = place(weights, start, min(columns - start, block))
                for row in range(0, rows, row_step):
                    for index in range(0, end - output, at_once):
                        arguments = (
                            weights.ctypes.data + (output + index) * stride + at,
                            stride if output + index + 1 < end else 0,
                            multipliers.ctypes.data
                            + index * multipliers.strides[0]
                            + start // GROUP * multipliers.strides[1],
                            multipliers.strides[0],
                            x.ctypes.data + row * x.strides[0] + start * x.strides[1],
                            x.strides[0],
                            rows - row,
                            totals.ctypes.data + index * totals.strides[0] + row * item,
                            totals.strides[0],
                            count,
                            ahead,
                        )
                        if has_more:  # noqa: SIM102 - Numba leaves out what a constant forbids
                            if row_step == MORE_ROWS and rows - row > FEW_ROWS:
                                more(*arguments)
                                continue
                        few(*arguments)
            for row in range(rows):
                written = out[row, output:end]
                for index in range(len(written)):
                    written[index] = finish(totals[index, row], scales[index], x_scales[row])

    item, has_more = np.dtype(total).itemsize, more is not None
    return multiply


@compiled
def _plain_place(weights: Any, start: Number, columns: Number) -> tuple[Number, Number]:
    return start * weights.strides[1], columns


@compiled
def _int4_place(weights: Any, start: Number, columns: Number) -> tuple[Number, Number]:
    return start // 2, columns // GROUP


_product_float32, _product_bfloat16 = (
    _make_gemv(dot, _plain, np.float32, BLOCK) for dot in (dot_float32, dot_bfloat16)
)
_product_int8 = _make_gemv(dot_int8, _scaled_int8, np.int64, _INT8_BLOCK)

_few_float32 = _make_few(few_float32, scale_nothing, _plain_place, unscaled, np.float32, BLOCK)
_few_bfloat16 = _make_few(few_bfloat16, scale_nothing, _plain_place, unscaled, np.float32, BLOCK)
_few_int8 = _make_few(few_int8, scale_int8, _plain_place, scaled, np.int64, _INT_BLOCK_OF_FEW)
_few_int4 = _make_few(
    few_int4, scale_int4, _int4_place, scaled, np.int64, _INT_BLOCK_OF_FEW, more_int4
)


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
        _product_float32((weights,), x, out[:, 0], out, first, last)
    else:
        _few_float32((weights,), x, out[:, 0], out, first, last)


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
        _product_bfloat16((weights,), x, out[:, 0], out, first, last)
    else:
        _few_bfloat16((weights,), x, out[:, 0], out, first, last)


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
        _product_int8((weights, weight_scales), q, x_scales, out, first, last)
    else:
        _few_int8((weights, weight_scales), q, x_scales, out, first, last)


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
    matrix = packed, group_scales
    if len(out) == 1:
        _product_int4(matrix, q, corrections, x_scales, out, first, last)
    else:
        _few_int4(matrix, q, x_scales, out, first, last)
