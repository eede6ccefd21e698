"""Vectors of LLVM: the few operations that the kernels' inner loops are written in.

Numba has no vector type, and no plain loop makes LLVM multiply pairs of 16-bit integers the way
that processors do best. These functions write generic vector code, nothing of one processor: LLVM
finds `vpmaddwd` for it on AVX2, `vpdpwssd` on AVX-512 and `smlal` on Arm, and cuts vectors that are
wider than the processor's into pieces.
"""
# Numba's own functions carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

__all__ = [
    "FLOAT",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "add_lanes",
    "constant",
    "fused",
    "load",
    "pair_products",
    "prefetch",
    "rows_of",
    "spread",
    "vector",
]

INT8, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOAT = ir.FloatType()

Value = Any  # llvmlite has no types
Builder = Any


def vector(scalar: Value, lanes: int) -> Value:
    """The type of `lanes` scalars."""
    return ir.VectorType(scalar, lanes)


def constant(kind: Value, number: int) -> Value:
    """The same number in each lane of a vector type."""
    return ir.Constant(kind, [number] * kind.count)


def rows_of(
    context: Any, builder: Builder, kind: Any, array: Value, first: Value, count: int
) -> Any:
    """Where `count` rows of a two-dimensional array begin: byte pointers."""
    fields = context.make_array(kind)(context, builder, array)
    start = builder.bitcast(fields.data, INT8.as_pointer())
    stride = builder.extract_value(fields.strides, 0)
    return [
        builder.gep(start, [builder.mul(builder.add(first, INT64(row)), stride)])
        for row in range(count)
    ]


def load(builder: Builder, row: Value, byte: Value, kind: Value) -> Value:
    """Load a vector or a scalar from a row; nothing is asked of the address."""
    pointer = builder.bitcast(builder.gep(row, [byte]), kind.as_pointer())
    return builder.load(pointer, align=1)


def prefetch(builder: Builder, row: Value, byte: Value) -> None:
    """Ask for a line of memory that will be read soon; no address is wrong."""
    pointer = INT8.as_pointer()
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [pointer, INT32, INT32, INT32]),
        "llvm.prefetch.p0",
    )
    read, keep, data = INT32(0), INT32(3), INT32(1)
    builder.call(function, [builder.gep(row, [byte]), read, keep, data])


def _choose(builder: Builder, value: Value, lanes: Sequence[int]) -> Value:
    undefined = ir.Constant(value.type, ir.Undefined)
    return builder.shuffle_vector(
        value, undefined, ir.Constant(vector(INT32, len(lanes)), list(lanes))
    )


def spread(builder: Builder, scalar: Value, lanes: int) -> Value:
    """A scalar in each lane."""
    start = ir.Constant(vector(scalar.type, lanes), ir.Undefined)
    return _choose(builder, builder.insert_element(start, scalar, INT32(0)), [0] * lanes)


def pair_products(builder: Builder, left: Value, right: Value) -> Value:
    """Products of int16 lanes, neighbours added: half as many int32 lanes."""
    lanes = left.type.count
    wide = vector(INT32, lanes)
    products = builder.mul(builder.sext(left, wide), builder.sext(right, wide))
    even, odd = range(0, lanes, 2), range(1, lanes, 2)
    return builder.add(_choose(builder, products, even), _choose(builder, products, odd))


def fused(builder: Builder, left: Value, right: Value, total: Value) -> Value:
    """`left * right + total` of float32s or their lanes, rounded once where the processor can.

    Every processor but the first x86-64 ones can; those round the product, too.
    """
    kind = left.type
    lanes = "" if kind == FLOAT else f"v{kind.count}"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fmuladd.{lanes}f32"
    )
    return builder.call(function, [left, right, total])


def add_lanes(builder: Builder, value: Value) -> Value:
    """The sum of all lanes: the upper half is added to the lower until one is left."""
    add = builder.fadd if value.type.element == FLOAT else builder.add
    lanes = value.type.count
    while lanes > 1:
        lanes //= 2
        lower = _choose(builder, value, range(lanes))
        value = add(lower, _choose(builder, value, range(lanes, 2 * lanes)))
    return builder.extract_element(value, INT32(0))
