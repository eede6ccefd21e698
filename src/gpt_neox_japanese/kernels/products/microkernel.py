"""Micro-kernels of GEMV with one row: an inner product of weights and of activations.

Columns lie in the lanes of vectors, as they do in memory, and weights are asked for a little before
they are needed. Each micro-kernel becomes a loop inside its caller. More rows are for `few_rows`,
which shares the pieces of code that these are made of.
"""
# Numba's own functions carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gpt_neox_japanese.kernels.constants import FLOAT_LANES, GROUP
from gpt_neox_japanese.kernels.llvm import (
    FLOAT,
    INT8,
    INT16,
    INT32,
    INT64,
    add_products,
    constant,
    fmuladd,
    load,
    prefetch,
    reduce_add,
    row_pointer,
    shuffle,
    splat,
    vector,
)

__all__ = [
    "add_floats",
    "bfloat16_to_float32",
    "dot_bfloat16",
    "dot_float32",
    "dot_int4",
    "dot_int8",
    "for_each_step",
    "int4_to_int16",
    "int8_to_int16",
    "prefetch_lines",
    "size_of",
    "sum_of_each",
]


_CACHE_LINE = 64  # bytes

_PREFETCH_BYTES = 1024
_PREFETCH_BYTES_INT4 = 4096  # memory must not rest while the scales of eight outputs are prepared
_GROUPS = 8  # of int4 that are multiplied at a time
_INT_COLUMNS = 64  # of int8 that are multiplied at a time, for one row; all sums are exact

Builder = Any  # llvmlite and Numba have no types for what follows
Value = Any
Step = Callable[[list[Value], Value], None]


def size_of(scalar: Value) -> int:
    """Bytes of a number of this LLVM type."""
    return 4 if scalar == FLOAT else int(scalar.width) // 8


def for_each_step(
    builder: Builder,
    first: Value,
    last: Value,
    columns: int,
    sources: list[tuple[Value, Value]],
    step: Step,
) -> None:
    """Call `step` for `columns` at a time from `first` to `last`, the rest filled up with zeros.

    Args:
        builder: Writes the code.
        first: Column, int64.
        last: Column, int64.
        columns: Of a step, a power of two.
        sources: Byte pointer to a row, and type of its elements.
        step: Called with pointers to the rows and a step's first column; twice, for two places in
            the code.
    """
    whole = builder.add(first, builder.and_(builder.sub(last, first), INT64(-columns)))
    with cgutils.for_range_slice(builder, first, whole, INT64(columns)) as (column, _):
        step([row for row, _ in sources], column)
    with builder.if_then(builder.icmp_signed("<", whole, last), likely=False):
        rest = []
        for row, scalar in sources:
            kind, size = vector(scalar, columns), size_of(scalar)
            buffer = cgutils.alloca_once(builder, kind)
            builder.store(ir.Constant(kind, None), buffer)
            start = builder.gep(row, [builder.mul(whole, INT64(size))])
            cgutils.raw_memcpy(builder, buffer, start, builder.sub(last, whole), size)
            rest.append(builder.bitcast(buffer, INT8.as_pointer()))
        step(rest, INT64(0))


def prefetch_lines(builder: Builder, row: Value, byte: Value, size: int) -> None:
    """Prefetch `size` bytes of a row.

    Args:
        builder: Writes the code.
        row: Byte pointer.
        byte: Offset from there.
        size: How many bytes.
    """
    for line in range(0, size, _CACHE_LINE):
        prefetch(builder, row, builder.add(byte, INT64(line)))


def _make_microkernel(result: Any, generate: Callable[..., Value]) -> Any:
    """Make a function of compiled code whose result is the sum of an output.

    `(matrix, inputs, output, first, last)` → sum.

        matrix    tuple of arrays with a row for each output
        inputs    tuple of arrays with one row
        output    which output
        first     column, or group
        last      column, or group

    Args:
        result: Numba type of a sum.
        generate: `(builder, row of each array of matrix and inputs, first, last)` → sum.
    """

    @intrinsic
    def dot(_: Any, matrix: Any, inputs: Any, output: Any, first: Any, last: Any) -> Any:
        word = types.intp

        def code(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            matrix, inputs, output, first, last = arguments
            rows = [
                row_pointer(context, builder, kind, array, row)
                for kinds, tuple_, row in (
                    (signature.args[0], matrix, output),
                    (signature.args[1], inputs, INT64(0)),
                )
                for kind, array in zip(kinds, cgutils.unpack_tuple(builder, tuple_), strict=True)
                if kind.ndim == 2
            ]
            return generate(builder, rows, first, last)

        return result(matrix, inputs, word, word, word), code

    return dot


def _make_dot(
    weight_type: Value,
    input_type: Value,
    scalar: Value,
    columns: int,
    prepare: Callable[[Builder, Value], Value],
    add: Callable[[Builder, Value, Value, Value], Value],
) -> Any:
    """Make the micro-kernel of a format without groups.

    Args:
        weight_type: Element of the weights.
        input_type: Element of the activations.
        scalar: Element of the sums.
        columns: How many are multiplied at a time.
        prepare: `(builder, weights)` → what is multiplied.
        add: `(builder, sums, weights, inputs)` → sums.
    """
    lanes = columns if scalar == FLOAT else columns // 2
    size = size_of(weight_type)
    size_of_step = max(columns * size, _CACHE_LINE)

    def generate(builder: Builder, rows: list[Value], first: Value, last: Value) -> Value:
        weights, inputs = rows
        kind = vector(scalar, lanes)
        sums = cgutils.alloca_once_value(builder, ir.Constant(kind, None))

        def part(row: Value, kind: Value, column: Value) -> Value:
            byte = builder.mul(column, INT64(size_of(kind)))
            return load(builder, row, byte, vector(kind, columns))

        def step(rows: list[Value], column: Value) -> None:
            weights, inputs = rows
            byte = builder.add(builder.mul(column, INT64(size)), INT64(_PREFETCH_BYTES))
            prefetch_lines(builder, weights, byte, size_of_step)
            for offset in range(0, size_of_step // size, columns):
                at = builder.add(column, INT64(offset))
                multiplied = prepare(builder, part(weights, weight_type, at))
                values = part(inputs, input_type, at)
                builder.store(add(builder, builder.load(sums), multiplied, values), sums)

        sources = [(weights, weight_type), (inputs, input_type)]
        for_each_step(builder, first, last, size_of_step // size, sources, step)
        return reduce_add(builder, builder.load(sums))

    return _make_microkernel(types.float32 if scalar == FLOAT else types.int32, generate)


def int8_to_int16(builder: Builder, weights: Value) -> Value:
    """Widen a vector of int8."""
    return builder.sext(weights, vector(INT16, weights.type.count))


def int4_to_int16(builder: Builder, packed: Value, group: Value, multipliers: Value) -> list[Value]:
    """Unpack a group of int4 and multiply it by its multiplier; see `widen`.

    A nibble is a weight plus 8. With its highest bit inverted and taken to the top of a word, it is
    a weight times 2**12, and the upper half of its product with 16 times a multiplier is exact.

    Args:
        builder: Writes the code.
        packed: Byte pointer to groups.
        group: Which, int64.
        multipliers: Byte pointer to those of the groups.

    Returns:
        Two vectors of 32 int16, in the order of the columns.
    """
    half = GROUP // 2
    kind, wide = vector(INT16, half), vector(INT32, half)
    words = load(builder, packed, builder.mul(group, INT64(half)), vector(INT16, GROUP // 4))
    words = shuffle(builder, words, 2 * list(range(GROUP // 4)))  # four nibbles of 16 columns each
    by = load(builder, multipliers, builder.mul(group, INT64(2)), INT16)
    by = builder.sext(splat(builder, by, half), wide)
    weights = []
    for shifts in (12, 8), (4, 0):
        counts = ir.Constant(kind, [shift for shift in shifts for _ in range(GROUP // 4)])
        nibbles = builder.and_(builder.shl(words, counts), constant(kind, -(2**12)))
        weight = builder.sext(builder.xor(nibbles, constant(kind, -(2**15))), wide)
        product = builder.ashr(builder.mul(weight, by), constant(wide, 16))
        weights.append(builder.trunc(product, kind))
    return weights


def bfloat16_to_float32(builder: Builder, weights: Value) -> Value:
    """Widen a vector of bfloat16, which is int16 here."""
    kind = vector(INT32, weights.type.count)
    bits = builder.shl(builder.zext(weights, kind), constant(kind, 16))
    return builder.bitcast(bits, vector(FLOAT, weights.type.count))


def _identity(_: Builder, weights: Value) -> Value:
    return weights


def add_floats(builder: Builder, sums: Value, weights: Value, inputs: Value) -> Value:
    """Add products of floats to sums, rounded once."""
    return fmuladd(builder, weights, inputs, sums)


# int8 [outputs, columns] with int16 [1, columns]; sums of int32, so that 8,192 columns with
# activations up to 2,047 are the most.
dot_int8 = _make_dot(INT8, INT16, INT32, _INT_COLUMNS, int8_to_int16, add_products)
# Bit patterns of bfloat16 as uint16, with float32.
dot_bfloat16 = _make_dot(INT16, FLOAT, FLOAT, FLOAT_LANES, bfloat16_to_float32, add_floats)
# float32 with float32.
dot_float32 = _make_dot(FLOAT, FLOAT, FLOAT, FLOAT_LANES, _identity, add_floats)


def _generate_int4(builder: Builder, rows: list[Value], first: Value, last: Value) -> Value:
    """Code for int4: the inner product over the groups `first` to `last`, 16 times as large.

    A group's products are summed before its multiplier takes part: one multiplication a group
    instead of one a weight, which only several rows share. A lane then has the sum of a whole
    group. The corrections take care that nibbles are weights plus 8.

    Args:
        builder: Writes the code.
        rows: Of the packed weights, uint8 [columns / 2]; of the activations, int16 [columns]; of
            the corrections, int32 [groups]: -8 times the sum of a group's activations; and of the
            multipliers, int16 [groups], 16 times as large: see `widen`.
        first: Group.
        last: Group.
    """
    packed, inputs, corrections, multipliers = rows
    lanes = vector(INT64, _GROUPS)
    totals = cgutils.alloca_once_value(builder, ir.Constant(lanes, None))
    rest = cgutils.alloca_once_value(builder, INT64(0))

    def add(place: Value, sums: Value, group: Value) -> None:
        """Add the groups' sums, int32, to those in a place, int64."""
        wide = place.type.pointee
        size = wide.count if wide == lanes else 1

        def numbers(row: Value, scalar: Value) -> Value:
            kind = vector(scalar, size) if wide == lanes else scalar
            return load(builder, row, builder.mul(group, INT64(size_of(scalar))), kind)

        corrected = builder.sext(builder.add(sums, numbers(corrections, INT32)), wide)
        product = builder.mul(corrected, builder.sext(numbers(multipliers, INT16), wide))
        builder.store(builder.add(builder.load(place), product), place)

    whole = builder.add(first, builder.and_(builder.sub(last, first), INT64(-_GROUPS)))
    with cgutils.for_range_slice(builder, first, whole, INT64(_GROUPS)) as (group, _):
        block = builder.gep(packed, [builder.mul(group, INT64(GROUP // 2))])
        inputs_of_block = builder.gep(inputs, [builder.mul(group, INT64(2 * GROUP))])
        prefetch_lines(builder, block, INT64(_PREFETCH_BYTES_INT4), _GROUPS * GROUP // 2)
        each = [
            _sums_of_group(builder, block, inputs_of_block, INT64(index))
            for index in range(_GROUPS)
        ]
        add(totals, sum_of_each(builder, each), group)
    with cgutils.for_range_slice(builder, whole, last, INT64(1)) as (group, _):
        add(rest, reduce_add(builder, _sums_of_group(builder, packed, inputs, group)), group)
    return builder.add(reduce_add(builder, builder.load(totals)), builder.load(rest))


def _sums_of_group(builder: Builder, packed: Value, inputs: Value, group: Value) -> Value:
    """Eight sums of a group's products.

    The 32 bytes of a group are 16 words of four nibbles; nibble h of word i is column 16 h + i. So
    16 columns are a mask and at most a shift away, in their order. Nibbles 1 and 3 stay four bits
    too high, which costs one shift of their sum instead of two of the words.
    """
    byte = builder.mul(group, INT64(GROUP // 2))
    words = load(builder, packed, byte, vector(INT16, GROUP // 4))
    upper = builder.lshr(words, constant(words.type, 8))
    sums = []
    for mask, first in ((0x0F, 0), (0xF0, 1)):
        total = ir.Constant(vector(INT32, GROUP // 8), None)
        for place, source in ((first, words), (first + 2, upper)):
            nibbles = builder.and_(source, constant(words.type, mask))
            at = builder.add(builder.mul(group, INT64(2 * GROUP)), INT64(GROUP // 2 * place))
            total = add_products(builder, total, nibbles, load(builder, inputs, at, words.type))
        sums.append(total)
    low, high = sums
    return builder.add(low, builder.ashr(high, constant(high.type, 4)))


def sum_of_each(builder: Builder, vectors: list[Value]) -> Value:
    """Sum eight vectors of eight lanes, each in halves: lane i is the sum of vector i.

    Two vectors become one whose lanes are sums of two, three times over. Which two, and where their
    sums go, is what x86-64 does with the fewest shuffles.
    """

    def halved(left: Value, right: Value, lower: list[int], upper: list[int]) -> Value:
        parts = [shuffle(builder, left, lanes, right) for lanes in (lower, upper)]
        return add(*parts)

    add = builder.fadd if vectors[0].type.element == FLOAT else builder.add

    lower, upper = [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]
    fours = [halved(vectors[i], vectors[i + 4], lower, upper) for i in range(4)]
    lower, upper = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
    twos = [halved(fours[i], fours[i + 1], lower, upper) for i in (0, 2)]
    lower, upper = [0, 2, 8, 10, 4, 6, 12, 14], [1, 3, 9, 11, 5, 7, 13, 15]
    return halved(twos[0], twos[1], lower, upper)


dot_int4 = _make_microkernel(types.int64, _generate_int4)
