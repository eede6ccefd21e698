"""Vectors of LLVM: the few operations that the kernels' inner loops are written in.

Numba has no vector type, and no plain loop makes LLVM multiply pairs of 16-bit integers the way
that processors do best. These functions write generic vector code, nothing of one processor: LLVM
finds an instruction for it, and cuts vectors that are wider than the processor's into pieces. Only
`add_products` is written in two ways, and both give the same bits.
"""
# Numba's own functions carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils

__all__ = [
    "FLOAT",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "add_lanes",
    "add_products",
    "constant",
    "fused",
    "load",
    "prefetch",
    "rows_of",
    "spread",
    "vector",
]

INT8, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOAT = ir.FloatType()

Value = Any  # llvmlite has no types
Builder = Any

_ARM = binding.get_process_triple().startswith(("aarch64", "arm64"))


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


def add_products(
    builder: Builder, sums: Value, left: Value, right: Value, *, neighbours: bool, arm: bool = _ARM
) -> Value:
    """Add products of int16 lanes to half as many sums of int32, two to each.

    Processors with AVX2 multiply neighbours and add them in one instruction, `vpmaddwd`, those with
    AVX-512's VNNI together with the sum, `vpdpwssd`. Arm has none of this kind: it adds one product
    to each sum, `smlal`, and takes the lanes best as they lie, the lower half and then the upper.

    Args:
        builder: Writes the code.
        sums: int32 lanes.
        left: Twice as many int16 lanes.
        right: As `left`.
        neighbours: Lanes 2 i and 2 i + 1 go to sum i. Otherwise any two may.
        arm: Write it as Arm needs it.
    """
    lanes = left.type.count
    even, odd = range(0, lanes, 2), range(1, lanes, 2)
    if not arm:
        wide = vector(INT32, lanes)
        products = builder.mul(builder.sext(left, wide), builder.sext(right, wide))
        pairs = builder.add(_choose(builder, products, even), _choose(builder, products, odd))
        return builder.add(sums, pairs)
    halves = range(lanes // 2), range(lanes // 2, lanes)
    for part in (even, odd) if neighbours else halves:
        wide = [builder.sext(_choose(builder, each, part), sums.type) for each in (left, right)]
        sums = builder.add(sums, builder.mul(*wide))
    return sums


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
