"""LLVM vectors: the few operations that the micro-kernels are written in.

Numba has no vector type, and no plain loop makes LLVM multiply pairs of 16-bit integers the way
that processors do best. These functions write generic vector code, nothing of one processor: LLVM
finds an instruction for it, and cuts vectors that are wider than the processor's into pieces. Only
`add_products`, and `broadcast_pair` with it, is written in two ways, and both give the same bits.
"""
# Numba's own functions carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils

__all__ = [
    "ARM",
    "FLOAT",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "add_products",
    "broadcast_pair",
    "constant",
    "fmuladd",
    "load",
    "prefetch",
    "reduce_add",
    "row_pointer",
    "shuffle",
    "splat",
    "store",
    "vector",
]

INT8, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOAT = ir.FloatType()

Value = Any  # llvmlite has no types
Builder = Any

ARM = binding.get_process_triple().startswith(("aarch64", "arm64"))


def vector(scalar: Value, lanes: int) -> Value:
    """Make a vector type.

    Args:
        scalar: LLVM type of a lane.
        lanes: How many there are.

    Returns:
        An LLVM type.
    """
    return ir.VectorType(scalar, lanes)


def constant(kind: Value, number: int) -> Value:
    """Make a constant with the same number in each lane.

    Args:
        kind: A vector type.
        number: In each lane.

    Returns:
        An LLVM constant.
    """
    return ir.Constant(kind, [number] * kind.count)


def row_pointer(context: Any, builder: Builder, kind: Any, array: Value, row: Value) -> Value:
    """Find where a row of a two-dimensional array begins.

    Args:
        context: Numba's target.
        builder: Writes the code.
        kind: Numba type of the array.
        array: LLVM value of the array, [rows, columns].
        row: Which row, int64.

    Returns:
        A byte pointer.
    """
    fields = context.make_array(kind)(context, builder, array)
    start = builder.bitcast(fields.data, INT8.as_pointer())
    return builder.gep(start, [builder.mul(row, builder.extract_value(fields.strides, 0))])


def load(builder: Builder, row: Value, byte: Value, kind: Value) -> Value:
    """Load a vector or a scalar from a row; the address need not be aligned.

    Args:
        builder: Writes the code.
        row: Byte pointer to the row.
        byte: Offset from there, int64.
        kind: LLVM type of what is loaded.

    Returns:
        A value of this type.
    """
    pointer = builder.bitcast(builder.gep(row, [byte]), kind.as_pointer())
    return builder.load(pointer, align=1)


def prefetch(builder: Builder, row: Value, byte: Value, cache: int = 2) -> None:
    """Prefetch a cache line that will be read soon; no address is wrong.

    The L1 cache can wait for two dozen lines at a time, which is less than memory has under way:
    through it, products with two to four rows took twice as long. Where lines are asked for slowly
    enough, as in GEMM, it is the better place.

    Args:
        builder: Writes the code.
        row: Byte pointer.
        byte: Offset from there, int64.
        cache: Into which, 1 or 2.
    """
    pointer = INT8.as_pointer()
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [pointer, INT32, INT32, INT32]),
        "llvm.prefetch.p0",
    )
    read, locality, data = INT32(0), INT32(4 - cache), INT32(1)
    builder.call(function, [builder.gep(row, [byte]), read, locality, data])


def store(builder: Builder, value: Value, row: Value, byte: Value) -> None:
    """Store a vector or a scalar in a row; the address need not be aligned.

    Args:
        builder: Writes the code.
        value: What is stored.
        row: Byte pointer to the row.
        byte: Offset from there, int64.
    """
    pointer = builder.bitcast(builder.gep(row, [byte]), value.type.as_pointer())
    builder.store(value, pointer, align=1)


def shuffle(
    builder: Builder, value: Value, lanes: Sequence[int], other: Value | None = None
) -> Value:
    """Choose lanes.

    Args:
        builder: Writes the code.
        value: A vector.
        lanes: Which; those of `other` are counted on from those of `value`.
        other: A vector of the same type.

    Returns:
        A vector of as many lanes as were chosen.
    """
    other = ir.Constant(value.type, ir.Undefined) if other is None else other
    return builder.shuffle_vector(value, other, ir.Constant(vector(INT32, len(lanes)), list(lanes)))


def splat(builder: Builder, scalar: Value, lanes: int) -> Value:
    """Broadcast a scalar to each lane of a vector.

    Args:
        builder: Writes the code.
        scalar: LLVM value.
        lanes: How many there are.

    Returns:
        A vector.
    """
    start = ir.Constant(vector(scalar.type, lanes), ir.Undefined)
    return shuffle(builder, builder.insert_element(start, scalar, INT32(0)), [0] * lanes)


def add_products(
    builder: Builder, sums: Value, left: Value, right: Value, *, arm: bool | None = None
) -> Value:
    """Add products of int16 lanes to half as many sums of int32, two to each.

    Processors with AVX2 multiply neighbours and add them in one instruction, `vpmaddwd`, those with
    AVX-512's VNNI together with the sum, `vpdpwssd`: lanes 2 i and 2 i + 1 go to sum i. Arm has
    none of this kind: it adds one product to each sum, `smlal`, and takes the lanes best as they
    lie. So there lanes i of the lower and of the upper half go to sum i.

    Args:
        builder: Writes the code.
        sums: int32 lanes.
        left: Twice as many int16 lanes.
        right: As `left`.
        arm: Write it as Arm needs it; None if this processor is one.

    Returns:
        The new sums, int32 lanes.
    """
    lanes = left.type.count
    if not (ARM if arm is None else arm):
        wide = vector(INT32, lanes)
        products = builder.mul(builder.sext(left, wide), builder.sext(right, wide))
        even, odd = range(0, lanes, 2), range(1, lanes, 2)
        pairs = builder.add(shuffle(builder, products, even), shuffle(builder, products, odd))
        return builder.add(sums, pairs)
    for half in range(lanes // 2), range(lanes // 2, lanes):
        wide = [builder.sext(shuffle(builder, each, half), sums.type) for each in (left, right)]
        sums = builder.add(sums, builder.mul(*wide))
    return sums


def broadcast_pair(builder: Builder, pair: Value, count: int, *, arm: bool | None = None) -> Value:
    """Make what `add_products` multiplies every pair of lanes with.

    Args:
        builder: Writes the code.
        pair: Two int16, as int32.
        count: How many pairs of lanes.
        arm: As in `add_products`.

    Returns:
        Twice as many int16 lanes: the pair again and again, or the first number in the lower half
        and the second in the upper one.
    """
    if ARM if arm is None else arm:
        numbers = builder.bitcast(pair, vector(INT16, 2))
        return shuffle(builder, numbers, [0] * count + [1] * count)
    return builder.bitcast(splat(builder, pair, count), vector(INT16, 2 * count))


def fmuladd(builder: Builder, left: Value, right: Value, total: Value) -> Value:
    """`left * right + total` of float32s or their lanes, rounded once where the processor can.

    Every processor but the first x86-64 ones can; those round the product, too.

    Args:
        builder: Writes the code.
        left: float32, or a vector of them.
        right: As `left`.
        total: As `left`.

    Returns:
        A value of the type of `left`.
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

    Returns:
        A scalar.
    """
    add = builder.fadd if value.type.element == FLOAT else builder.add
    lanes = value.type.count
    while lanes > 1:
        lanes //= 2
        lower = shuffle(builder, value, range(lanes))
        value = add(lower, shuffle(builder, value, range(lanes, 2 * lanes)))
    return builder.extract_element(value, INT32(0))
