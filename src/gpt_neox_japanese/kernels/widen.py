"""Widens stored weights into the numbers that GEMM multiplies: float32, or int16 from integers."""
# Numba's own functions carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gpt_neox_japanese.kernels.bfloat16 import to_float32
from gpt_neox_japanese.kernels.compile import Number, compiled
from gpt_neox_japanese.kernels.constants import FLOAT_LANES, GROUP
from gpt_neox_japanese.kernels.llvm import (
    INT8,
    INT16,
    INT32,
    INT64,
    load,
    store,
    vector,
)
from gpt_neox_japanese.kernels.microkernel import (
    bfloat16_to_float32,
    int4_to_int16,
    int8_to_int16,
)

__all__ = ["widen_bfloat16", "widen_float32", "widen_int4", "widen_int8"]

_STEP = 64  # columns that are widened at a time

Builder = Any  # llvmlite and Numba have no types for what follows
Value = Any


def _make_row(generate: Callable[..., None]) -> Any:
    """Make `(source, target, steps)`, addresses, and how often STEP columns follow.

    Args:
        generate: `(builder, source, target)`, pointers → code for STEP columns.
    """

    @intrinsic
    def row(_: Any, source: Any, target: Any, steps: Any) -> Any:
        def code(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            source, target = (builder.inttoptr(each, INT8.as_pointer()) for each in arguments[:2])
            with cgutils.for_range(builder, arguments[2]) as loop:
                generate(builder, source, target, loop.index)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.intp), code

    return row


def _generate_float32(builder: Builder, source: Value, target: Value, step: Value) -> None:
    byte = builder.mul(step, INT64(4 * _STEP))
    store(builder, load(builder, source, byte, vector(INT32, _STEP)), target, byte)


def _generate_bfloat16(builder: Builder, source: Value, target: Value, step: Value) -> None:
    bits = load(builder, source, builder.mul(step, INT64(2 * _STEP)), vector(INT16, _STEP))
    floats = bfloat16_to_float32(builder, bits)
    store(builder, floats, target, builder.mul(step, INT64(4 * _STEP)))


def _generate_int8(builder: Builder, source: Value, target: Value, step: Value) -> None:
    numbers = load(builder, source, builder.mul(step, INT64(_STEP)), vector(INT8, _STEP))
    wide = int8_to_int16(builder, numbers)
    store(builder, wide, target, builder.mul(step, INT64(2 * _STEP)))


def _generate_int4(builder: Builder, source: Value, target: Value, step: Value) -> None:
    for place, numbers in enumerate(int4_to_int16(builder, source, step)):
        at = builder.add(builder.mul(step, INT64(2 * GROUP)), INT64(place * GROUP // 2))
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
        scales: Any,
    ) -> None:
        weights = matrix[0]
        whole = (stop - start) // _STEP
        for index in range(end - output):
            source = weights.ctypes.data + (output + index) * weights.strides[0]
            target = buffer.ctypes.data + index * buffer.strides[0]
            row(source + start * weights.strides[1], target, whole)
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
    matrix: Any, output: Number, end: Number, start: Number, stop: Number, buffer: Any, scales: Any
) -> None:
    """Widen a block of int4 weights and their scales.

    Args:
        matrix: The packed weights, and their scales.
        output: First output.
        end: Output after the last.
        start: First column, a multiple of GROUP.
        stop: Column after the last, a multiple of GROUP.
        buffer: int16 [outputs, BLOCK].
        scales: float32 [outputs, groups of a block].
    """
    packed, group_scales = matrix
    for index in range(end - output):
        source = packed.ctypes.data + (output + index) * packed.strides[0] + start // 2
        target = buffer.ctypes.data + index * buffer.strides[0]
        _row_int4(source, target, (stop - start) // GROUP)
        for group in range((stop - start) // GROUP):
            scales[index, group] = to_float32(group_scales[output + index, start // GROUP + group])
