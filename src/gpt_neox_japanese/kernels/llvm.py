"""LLVM vectors: the few operations that the micro-kernels are written in.

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
    "add_products",
    "constant",
    "fmuladd",
    "load",
    "prefetch",
    "reduce_add",
    "row_pointers",
    "splat",
    "vector",
]

INT8, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOAT = ir.FloatType()

Value = Any  # llvmlite has no types
Builder = Any

_ARM = binding.get_process_triple().startswith(("aarch64", "arm64"))


def vector(scalar: Value, lanes: int) -> Value:
    """Make a vector type.

    Args:
        scalar: LLVM type of a lane.
        lanes: How many there are.
    """
    return ir.VectorType(scalar, lanes)


def constant(kind: Value, number: int) -> Value:
    """Make a constant with the same number in each lane.

    Args:
        kind: A vector type.
        number: In each lane.
    """
    return ir.Constant(kind, [number] * kind.count)


def row_pointers(
    context: Any, builder: Builder, kind: Any, array: Value, first: Value, count: int
) -> Any:
    """Find where some rows of a two-dimensional array begin.

    Args:
        context: Numba's target.
        builder: Writes the code.
        kind: Numba type of the array.
        array: LLVM value of the array, [rows, columns].
        first: The first of the rows, int64.
        count: How many.

    Returns:
        `count` byte pointers.
    """
    fields = context.make_array(kind)(context, builder, array)
    start = builder.bitcast(fields.data, INT8.as_pointer())
    stride = builder.extract_value(fields.strides, 0)
    return [
        builder.gep(start, [builder.mul(builder.add(first, INT64(row)), stride)])
        for row in range(count)
    ]


def load(builder: Builder, row: Value, byte: Value, kind: Value) -> Value:
    """Load a vector or a scalar from a row; the address need not be aligned.

    Args:
        builder: Writes the code.
        row: Byte pointer to the row.
        byte: Offset from there, int64.
        kind: LLVM type of what is loaded.
    """
    pointer = builder.bitcast(builder.gep(row, [byte]), kind.as_pointer())
    return builder.load(pointer, align=1)


def prefetch(builder: Builder, row: Value, byte: Value) -> None:
    """Prefetch a cache line that will be read soon; no address is wrong.

    Args:
        builder: Writes the code.
        row: Byte pointer.
        byte: Offset from there, int64.
    """
    pointer = INT8.as_pointer()
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [pointer, INT32, INT32, INT32]),
        "llvm.prefetch.p0",
    )
    read, keep, data = INT32(0), INT32(3), INT32(1)
    builder.call(function, [builder.gep(row, [byte]), read, keep, data])


def _shuffle(builder: Builder, value: Value, lanes: Sequence[int]) -> Value:
    undefined = ir.Constant(value.type, ir.Undefined)
    return builder.shuffle_vector(
        value, undefined, ir.Constant(vector(INT32, len(lanes)), list(lanes))
    )


def splat(builder: Builder, scalar: Value, lanes: int) -> Value:
    """Broadcast a scalar to each lane of a vector.

    Args:
        builder: Writes the code.
        scalar: LLVM value.
        lanes: How many there are.
    """
    start = ir.Constant(vector(scalar.type, lanes), ir.Undefined)
    return _shuffle(builder, builder.insert_element(start, scalar, INT32(0)), [0] * lanes)


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

    Returns:
        The new sums, int32 lanes.
    """
    lanes = left.type.count
    even, odd = range(0, lanes, 2), range(1, lanes, 2)
    if not arm:
        wide = vector(INT32, lanes)
        products = builder.mul(builder.sext(left, wide), builder.sext(right, wide))
        pairs = builder.add(_shuffle(builder, products, even), _shuffle(builder, products, odd))
        return builder.add(sums, pairs)
    halves = range(lanes // 2), range(lanes // 2, lanes)
    for part in (even, odd) if neighbours else halves:
        wide = [builder.sext(_shuffle(builder, each, part), sums.type) for each in (left, right)]
        sums = builder.add(sums, builder.mul(*wide))
    return sums


def fmuladd(builder: Builder, left: Value, right: Value, total: Value) -> Value:
    """`left * right + total` of float32s or their lanes, rounded once where the processor can.

    Every processor but the first x86-64 ones can; those round the product, too.

    Args:
        builder: Writes the code.
        left: float32, or a vector of them.
        right: As `left`.
        total: As `left`.
    """
    kind = left.type
    lanes = "" if kind == FLOAT else f"v{kind.count}"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fmuladd.{lanes}f32"
    )
    return builder.call(function, [left, right, total])


def reduce_add(builder: Builder, value: Value) -> Value:
    """Sum all lanes: the upper half is added to the lower until one is left.

    Args:
        builder: Writes the code.
        value: A vector of integers or float32, its lanes a power of two.
    """
    add = builder.fadd if value.type.element == FLOAT else builder.add
    lanes = value.type.count
    while lanes > 1:
        lanes //= 2
        lower = _shuffle(builder, value, range(lanes))
        value = add(lower, _shuffle(builder, value, range(lanes, 2 * lanes)))
    return builder.extract_element(value, INT32(0))
