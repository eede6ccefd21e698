"""Reductions of floats in an order that is written down, with the operations that are fused.

A loop that the compiler may turn into vectors as it likes may give sums that differ in the last bit
between two copies of one function. A request's numbers would then depend on which thread had
which part of the work. A product and a sum that it may fuse as it likes give other bits on another
processor.
"""
# What generates code for Numba carries no annotations: llvmlite has none.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils

from gpt_neox_japanese.kernels.compile import intrinsic
from gpt_neox_japanese.kernels.llvm import (
    FLOAT,
    INT8,
    INT16,
    INT32,
    INT64,
    constant,
    fmuladd,
    load,
    reduce_add,
    vector,
)

__all__ = ["dot", "multiply_add", "total"]

_LANES = 16  # they are part of the result


def _values(builder, kind, row, column, lanes):
    """`lanes` channels of a row, or one, as float32; the row is float32 or bfloat16 as uint16."""

    def of(scalar):
        return vector(scalar, lanes) if lanes > 1 else scalar

    if kind.dtype != types.uint16:
        return load(builder, row, builder.mul(column, INT64(4)), of(FLOAT))
    bits = builder.zext(load(builder, row, builder.mul(column, INT64(2)), of(INT16)), of(INT32))
    by = constant(of(INT32), 16) if lanes > 1 else INT32(16)
    return builder.bitcast(builder.shl(bits, by), of(FLOAT))


def _sum(context, builder, signature, arguments):
    """Of the products of two rows' channels, or of one row's channels."""
    arrays = [
        context.make_array(kind)(context, builder, value)
        for kind, value in zip(signature.args, arguments, strict=True)
    ]
    rows = [builder.bitcast(array.data, INT8.as_pointer()) for array in arrays]

    def channels(column, lanes):
        return [
            _values(builder, kind, row, column, lanes)
            for kind, row in zip(signature.args, rows, strict=True)
        ]

    count = builder.extract_value(arrays[0].shape, 0)
    whole = builder.and_(count, INT64(-_LANES))
    sums = cgutils.alloca_once_value(builder, ir.Constant(vector(FLOAT, _LANES), None))
    with cgutils.for_range_slice(builder, INT64(0), whole, INT64(_LANES)) as (column, _):
        first, *second = channels(column, _LANES)
        before = builder.load(sums)
        after = builder.fadd(first, before)
        if second:
            after = fmuladd(builder, first, second[0], before)
        builder.store(after, sums)
    result = cgutils.alloca_once_value(builder, reduce_add(builder, builder.load(sums)))
    with cgutils.for_range_slice(builder, whole, count, INT64(1)) as (column, _):
        first, *second = channels(column, 1)
        product = builder.fmul(first, second[0]) if second else first
        builder.store(builder.fadd(builder.load(result), product), result)
    return builder.load(result)


@intrinsic
def dot(typing_context, left, right):
    """The inner product of two rows of one length, float32 or bfloat16 as uint16, as float32.

    Channel i is added to sum i modulo 16; then the sums are added in halves, and then what is left
    over at the end of the rows, one after the other, and not fused: see `multiply_add`.
    """
    return types.float32(left, right), _sum


@intrinsic
def total(typing_context, row):
    """The sum of a row's channels, in the order of `dot`."""
    return types.float32(row), _sum


@intrinsic
def multiply_add(typing_context, left, right, addend):
    """`left * right + addend` of float32, rounded once where the processor can: see `fmuladd`.

    Not for the sum of a loop, such as `total = multiply_add(a[i], b[i], total)`: LLVM may turn it
    into a vector of products, rounded by themselves, whose lanes it then adds one after the other.
    It does so on Arm.
    """

    def generate(context, builder, signature, arguments):
        return fmuladd(builder, *arguments)

    return types.float32(types.float32, types.float32, types.float32), generate
