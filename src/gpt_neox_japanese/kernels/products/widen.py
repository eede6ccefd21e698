"""Widens stored weights into the numbers that are multiplied: float32, or int16 from integers.

In int4 a weight is widened together with the scale of its group, so that a row becomes one of whole
numbers with a single scale, as int8's are, and its sums are exact in any order. The scale of the
row is a power of two; that of a group becomes a whole number of it, its multiplier. The largest of
a row is from 410 to 816: then 160 products of widened weights and activations fit in 32 bits. The
scales of groups, which have 8 bits, stay as they are from half of the row's largest on; smaller
ones are rounded, by an 820th of the largest at most.
"""
# Numba's own functions carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gpt_neox_japanese.kernels.bfloat16 import to_float32
from gpt_neox_japanese.kernels.compile import Number, compiled
from gpt_neox_japanese.kernels.constants import FLOAT_LANES, GROUP
from gpt_neox_japanese.kernels.llvm import (
    FLOAT,
    INT8,
    INT16,
    INT32,
    INT64,
    constant,
    load,
    prefetch,
    shuffle,
    splat,
    store,
    vector,
)
from gpt_neox_japanese.kernels.products.microkernel import (
    bfloat16_to_float32,
    int4_to_int16,
    int8_to_int16,
)

__all__ = [
    "int4_multipliers",
    "padded_groups",
    "scale_int4",
    "scale_int8",
    "scale_nothing",
    "scaled",
    "unscaled",
    "widen_bfloat16",
    "widen_float32",
    "widen_int4",
    "widen_int8",
]

_STEP = 64  # columns that are widened at a time

_SCALES = 16  # that become multipliers at a time
_MULTIPLIER_SHIFT = 4  # multipliers are kept times 16: see `int4_to_int16`
_MAX_SIGNIFICAND = 204  # of 8 bits, that is multiplied by 4; by 2 if it is larger
_BIAS = 127  # of the exponent of a float32, which is that of a bfloat16
_ROUNDING = 12582912.0  # 1.5 * 2**23: what is added to it becomes whole, in its lowest bits

Builder = Any  # llvmlite and Numba have no types for what follows
Value = Any


@intrinsic
def int4_multipliers(_: Any, scales: Any, groups: Any, target: Any, ahead: Any) -> Any:
    """Make the multipliers of a row's groups.

    Args:
        _: Numba's.
        scales: Address of the row's scales, bit patterns of bfloat16.
        groups: How many there are.
        target: Address of int16 [padded_groups], which becomes 16 times the multipliers.
        ahead: Bytes from there to the scales that will be read next, which are prefetched.

    Returns:
        float32, the scale of the row; NaN if a group's is no finite number.
    """

    def code(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        scales, groups, target, ahead = arguments
        scales, target = (builder.inttoptr(each, INT8.as_pointer()) for each in (scales, target))
        kind = vector(INT16, _SCALES)
        stored = scales
        scales, windows, last = _windows(builder, stored, groups, kind)
        peaks = cgutils.alloca_once_value(builder, ir.Constant(kind, None))

        def window(index: Value) -> Value:
            """Byte where it begins; the last ends with the row, and overlaps the one before."""
            start = builder.mul(index, INT64(_SCALES))
            start = builder.select(builder.icmp_signed("<", start, last), start, last)
            return builder.mul(start, INT64(2))

        with cgutils.for_range(builder, windows) as loop:
            at = window(loop.index)
            prefetch(builder, stored, builder.add(at, ahead))
            size = builder.and_(load(builder, scales, at, kind), constant(kind, 0x7FFF))
            builder.store(_larger(builder, size, builder.load(peaks)), peaks)
        row_scale, factor = _scale_of_row(builder, builder.load(peaks))

        with cgutils.for_range(builder, windows) as loop:
            at = window(loop.index)
            floats = bfloat16_to_float32(builder, load(builder, scales, at, kind))
            rounding = ir.Constant(floats.type, [_ROUNDING] * _SCALES)
            whole = builder.fmul(floats, splat(builder, factor, _SCALES))
            whole = builder.bitcast(builder.fadd(whole, rounding), vector(INT32, _SCALES))
            numbers = builder.shl(builder.trunc(whole, kind), constant(kind, _MULTIPLIER_SHIFT))
            store(builder, numbers, target, at)
        return row_scale

    return types.float32(*[types.intp] * 4), code


def _windows(
    builder: Builder, scales: Value, groups: Value, kind: Value
) -> tuple[Value, Value, Value]:
    """Where a row's scales are read, how many vectors cover them, and where the last begins.

    Fewer than fill a vector are copied to where zeros follow.
    """
    room = cgutils.alloca_once(builder, kind)
    is_short = builder.icmp_signed("<", groups, INT64(_SCALES))
    with builder.if_then(is_short):
        builder.store(ir.Constant(kind, None), room)
        cgutils.raw_memcpy(builder, room, scales, groups, 2)
    copied = builder.bitcast(room, INT8.as_pointer())
    count = builder.udiv(builder.add(groups, INT64(_SCALES - 1)), INT64(_SCALES))
    last = builder.select(is_short, INT64(0), builder.sub(groups, INT64(_SCALES)))
    return builder.select(is_short, copied, scales), count, last


def _larger(builder: Builder, left: Value, right: Value) -> Value:
    return builder.select(builder.icmp_unsigned(">", left, right), left, right)


def _scale_of_row(builder: Builder, peaks: Value) -> tuple[Value, Value]:
    """The scale of a row, of bit patterns without sign among which the largest is; and its inverse.

    Next to the least of floats the scale of a row is larger, and multipliers are smaller.
    """
    lanes = _SCALES
    while lanes > 1:
        lanes //= 2
        halves = (shuffle(builder, peaks, range(at, at + lanes)) for at in (0, lanes))
        peaks = _larger(builder, *halves)
    peak = builder.zext(builder.extract_element(peaks, INT32(0)), INT32)
    is_finite = builder.icmp_unsigned("<", peak, INT32(0x7F80))
    # Adding what is missing raises the exponent if the significand is larger.
    exponent = builder.lshr(builder.add(peak, INT32(255 - _MAX_SIGNIFICAND)), INT32(7))
    exponent = builder.sub(_larger(builder, exponent, INT32(10)), INT32(9))
    scale, inverse = (
        builder.bitcast(builder.shl(each, INT32(23)), FLOAT)
        for each in (exponent, builder.sub(INT32(2 * _BIAS), exponent))
    )
    return builder.select(is_finite, scale, ir.Constant(FLOAT, float("nan"))), inverse


@compiled
def padded_groups(groups: Number) -> Number:
    """Room for the multipliers of a row: up to a multiple of what is made at a time."""
    return -(-groups // _SCALES) * _SCALES


@compiled
def scale_nothing(matrix: Any, output: Number, end: Number, scales: Any, multipliers: Any) -> None:
    """Prepare some outputs of a float format, which has no scales: see `scale_int4`."""


@compiled
def scale_int8(matrix: Any, output: Number, end: Number, scales: Any, multipliers: Any) -> None:
    """Prepare the scales of some outputs of int8, which are stored: see `scale_int4`."""
    for index in range(end - output):
        scales[index] = matrix[1][output + index]


@compiled
def scale_int4(matrix: Any, output: Number, end: Number, scales: Any, multipliers: Any) -> None:
    """Prepare the scales of some outputs of int4.

    Args:
        matrix: The packed weights, and their groups' scales.
        output: First output.
        end: Output after the last.
        scales: float32 [outputs], becomes those of rows.
        multipliers: int16 [outputs, padded_groups].
    """
    group_scales = matrix[1]
    for index in range(end - output):
        scales[index] = int4_multipliers(  # type: ignore[call-arg]
            group_scales.ctypes.data + (output + index) * group_scales.strides[0],
            group_scales.shape[1],
            multipliers.ctypes.data + index * multipliers.strides[0],
            (end - output) * group_scales.strides[0],
        )


@compiled
def unscaled(total: Number, scale: Number, x_scale: Number) -> Number:
    """An element of a product of floats: its sum, whatever the scales are."""
    return total


@compiled
def scaled(total: Number, scale: Number, x_scale: Number) -> Number:
    """An element of a product of integers: the exact sum, rounded, then scaled."""
    return np.float32(total) * (scale * x_scale)


def _make_row(generate: Callable[..., None]) -> Any:
    """Make `(source, multipliers, target, steps)`: addresses, and how often STEP columns follow.

    Args:
        generate: `(builder, source, multipliers, target, step)` → code for STEP columns.
    """

    @intrinsic
    def row(_: Any, source: Any, multipliers: Any, target: Any, steps: Any) -> Any:
        def code(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            *addresses, steps = arguments
            pointers = [builder.inttoptr(each, INT8.as_pointer()) for each in addresses]
            with cgutils.for_range(builder, steps) as loop:
                generate(builder, *pointers, loop.index)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 4), code

    return row


def _generate_float32(
    builder: Builder, source: Value, _: Value, target: Value, step: Value
) -> None:
    byte = builder.mul(step, INT64(4 * _STEP))
    store(builder, load(builder, source, byte, vector(INT32, _STEP)), target, byte)


def _generate_bfloat16(
    builder: Builder, source: Value, _: Value, target: Value, step: Value
) -> None:
    bits = load(builder, source, builder.mul(step, INT64(2 * _STEP)), vector(INT16, _STEP))
    floats = bfloat16_to_float32(builder, bits)
    store(builder, floats, target, builder.mul(step, INT64(4 * _STEP)))


def _generate_int8(builder: Builder, source: Value, _: Value, target: Value, step: Value) -> None:
    numbers = load(builder, source, builder.mul(step, INT64(_STEP)), vector(INT8, _STEP))
    wide = int8_to_int16(builder, numbers)
    store(builder, wide, target, builder.mul(step, INT64(2 * _STEP)))


def _generate_int4(
    builder: Builder,
    source: Value,
    multipliers: Value,
    target: Value,
    step: Value,
) -> None:
    for place, numbers in enumerate(int4_to_int16(builder, source, step, multipliers)):
        at = builder.add(builder.mul(step, INT64(2 * GROUP)), INT64(place * GROUP))
        store(builder, numbers, target, at)


_row_float32, _row_bfloat16, _row_int8, _row_int4 = (
    _make_row(generate)
    for generate in (_generate_float32, _generate_bfloat16, _generate_int8, _generate_int4)
)


def _make_widen(row: Any, stored: Any, multiple: int) -> Any:
    """Make the function that widens a block of weights of a format without groups.

    Args:
        row: Widens whole steps.
        stored: A stored number as it is multiplied.
        multiple: Up to which the columns are filled up with zeros.
    """

    @compiled
    def widen(
        matrix: Any,
        output: Number,
        end: Number,
        start: Number,
        stop: Number,
        buffer: Any,
        multipliers: Any,
    ) -> None:
        weights = matrix[0]
        whole = (stop - start) // _STEP
        for index in range(end - output):
            source = weights.ctypes.data + (output + index) * weights.strides[0]
            target = buffer.ctypes.data + index * buffer.strides[0]
            row(source + start * weights.strides[1], 0, target, whole)
            for column in range(whole * _STEP, stop - start):
                buffer[index, column] = stored(weights[output + index, start + column])
            for column in range(stop - start, -(-(stop - start) // multiple) * multiple):
                buffer[index, column] = 0

    return widen


@compiled
def _int16(number: Number) -> Number:
    return np.int16(number)


@compiled
def _float32(number: Number) -> Number:
    return to_float32(number)


widen_float32 = _make_widen(_row_float32, _float32, FLOAT_LANES)
widen_bfloat16 = _make_widen(_row_bfloat16, _float32, FLOAT_LANES)
widen_int8 = _make_widen(_row_int8, _int16, 2)


@compiled
def widen_int4(
    matrix: Any,
    output: Number,
    end: Number,
    start: Number,
    stop: Number,
    buffer: Any,
    multipliers: Any,
) -> None:
    """Widen a block of int4 weights.

    Args:
        matrix: The packed weights, and their groups' scales.
        output: First output.
        end: Output after the last.
        start: First column, a multiple of GROUP.
        stop: Column after the last, a multiple of GROUP.
        buffer: int16 [outputs, BLOCK].
        multipliers: int16 [outputs, padded_groups], of all columns: see `scale_int4`.
    """
    packed = matrix[0]
    for index in range(end - output):
        _row_int4(
            packed.ctypes.data + (output + index) * packed.strides[0] + start // 2,
            multipliers[index, start // GROUP :].ctypes.data,
            buffer.ctypes.data + index * buffer.strides[0],
            (stop - start) // GROUP,
        )
