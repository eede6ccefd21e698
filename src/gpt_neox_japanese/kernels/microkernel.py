"""Micro-kernels: a tile of a product, some rows of weights times some rows of activations.

Each micro-kernel becomes a loop inside its caller. `outputs` and `rows` are constants, so that all
sums stay in registers. One sum takes the same steps whatever the size of the tile.
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

from gpt_neox_japanese.kernels.constants import GROUP
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
    row_pointers,
    splat,
    vector,
)

__all__ = ["dot_bfloat16", "dot_float32", "dot_int4", "dot_int8"]


_CACHE_LINE = 64  # bytes

# Lanes of one sum of floats. They are part of the result: another number rounds differently.
_FLOAT_LANES = 32
# Columns that are multiplied at a time, by the number of sums. Any gives the same integers; fewer
# sums at once need more lanes to keep the units busy.
_INT_COLUMNS = {1: 64, 2: 64, 4: 32, 8: 16}

Builder = Any  # llvmlite and Numba have no types for what follows
Value = Any
Step = Callable[[list[Value], Value], None]


def _size_of(scalar: Value) -> int:
    return 4 if scalar == FLOAT else int(scalar.width) // 8


def _for_each_step(
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
            kind, size = vector(scalar, columns), _size_of(scalar)
            buffer = cgutils.alloca_once(builder, kind)
            builder.store(ir.Constant(kind, None), buffer)
            start = builder.gep(row, [builder.mul(whole, INT64(size))])
            cgutils.raw_memcpy(builder, buffer, start, builder.sub(last, whole), size)
            rest.append(builder.bitcast(buffer, INT8.as_pointer()))
        step(rest, INT64(0))


def _prefetch_lines(builder: Builder, row: Value, byte: Value, size: int, ahead: Value) -> None:
    """Prefetch the cache lines `ahead` bytes beyond the next `size` bytes of a row."""
    for line in range(0, size, _CACHE_LINE):
        prefetch(builder, row, builder.add(byte, builder.add(ahead, INT64(line))))


def _accumulators(builder: Builder, kind: Value, count: int) -> list[Value]:
    """Sums that begin at zero; LLVM keeps them in registers."""
    return [cgutils.alloca_once_value(builder, ir.Constant(kind, None)) for _ in range(count)]


def _make_microkernel(result: Any, generate: Callable[..., list[Value]]) -> Any:
    """Make a function of compiled code whose result is the sums of a tile.

    `(matrix, inputs, output, row, first, last, ahead, outputs, rows)` → tuple of `outputs * rows`,
    the sums of the first output in front.

        matrix    tuple of arrays with a row for each output
        inputs    tuple of arrays with a row for each row of activations
        output    first output
        row       first row of activations
        first     column, or group
        last      column, or group
        ahead     prefetch distance: how many bytes ahead lie the weights that will be read soon
        outputs   constant
        rows      constant

    Args:
        result: Numba type of a sum.
        generate: `(builder, rows of each array of matrix and inputs, first, last, ahead)` → sums.
    """

    @intrinsic(prefer_literal=True)
    def dot(
        _: Any,
        matrix: Any,
        inputs: Any,
        output: Any,
        row: Any,
        first: Any,
        last: Any,
        ahead: Any,
        outputs: Any,
        rows: Any,
    ) -> Any:
        word = types.intp
        height, width = outputs.literal_value, rows.literal_value
        signature = types.UniTuple(result, height * width)(
            matrix, inputs, word, word, word, word, word, outputs, rows
        )

        def code(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            matrix, inputs, output, row, first, last, ahead, *_ = arguments
            arrays = [
                row_pointers(context, builder, kind, array, start, count)
                for kinds, tuple_, start, count in (
                    (signature.args[0], matrix, output, height),
                    (signature.args[1], inputs, row, width),
                )
                for kind, array in zip(kinds, cgutils.unpack_tuple(builder, tuple_), strict=True)
                if kind.ndim == 2
            ]
            sums = generate(builder, arrays, first, last, ahead)
            return context.make_tuple(builder, signature.return_type, sums)

        return signature, code

    return dot


def _make_dot(
    weight_type: Value,
    input_type: Value,
    scalar: Value,
    prepare: Callable[[Builder, Value], Value],
    add: Callable[[Builder, Value, Value, Value], Value],
    lanes: Callable[[int], tuple[int, int]],
) -> Any:
    """Make the micro-kernel of a format without groups.

    Args:
        weight_type: Element of the weights.
        input_type: Element of the activations.
        scalar: Element of the sums.
        prepare: `(builder, weights)` → what is multiplied.
        add: `(builder, sums, weights, inputs)` → sums.
        lanes: Number of sums → columns that are multiplied at a time, and lanes of a sum.
    """

    def generate(
        builder: Builder, arrays: list[list[Value]], first: Value, last: Value, ahead: Value
    ) -> list[Value]:
        weights, inputs = arrays
        height = len(weights)
        columns, sum_lanes = lanes(height * len(inputs))
        size = _size_of(weight_type)
        size_of_step = max(columns * size, _CACHE_LINE)
        sums = _accumulators(builder, vector(scalar, sum_lanes), height * len(inputs))

        def part(row: Value, kind: Value, column: Value) -> Value:
            byte = builder.mul(column, INT64(_size_of(kind)))
            return load(builder, row, byte, vector(kind, columns))

        def step(rows: list[Value], column: Value) -> None:
            for row in rows[:height]:
                _prefetch_lines(builder, row, builder.mul(column, INT64(size)), size_of_step, ahead)
            for offset in range(0, size_of_step // size, columns):
                at = builder.add(column, INT64(offset))
                ready = [prepare(builder, part(row, weight_type, at)) for row in rows[:height]]
                for index, row in enumerate(rows[height:]):
                    values = part(row, input_type, at)
                    for output, multiplied in enumerate(ready):
                        place = sums[output * len(inputs) + index]
                        builder.store(add(builder, builder.load(place), multiplied, values), place)

        sources = [(row, weight_type) for row in weights] + [(row, input_type) for row in inputs]
        _for_each_step(builder, first, last, size_of_step // size, sources, step)
        return [reduce_add(builder, builder.load(place)) for place in sums]

    return _make_microkernel(types.float32 if scalar == FLOAT else types.int32, generate)


def _int8_to_int16(builder: Builder, weights: Value) -> Value:
    return builder.sext(weights, vector(INT16, weights.type.count))


def _bfloat16_to_float32(builder: Builder, weights: Value) -> Value:
    kind = vector(INT32, weights.type.count)
    bits = builder.shl(builder.zext(weights, kind), constant(kind, 16))
    return builder.bitcast(bits, vector(FLOAT, weights.type.count))


def _identity(_: Builder, weights: Value) -> Value:
    return weights


def _add_integers(builder: Builder, sums: Value, weights: Value, inputs: Value) -> Value:
    return add_products(builder, sums, weights, inputs, neighbours=False)


def _add_floats(builder: Builder, sums: Value, weights: Value, inputs: Value) -> Value:
    return fmuladd(builder, weights, inputs, sums)


def _int_lanes(sums: int) -> tuple[int, int]:
    return _INT_COLUMNS[sums], _INT_COLUMNS[sums] // 2


def _float_lanes(_: int) -> tuple[int, int]:
    return _FLOAT_LANES, _FLOAT_LANES


# int8 [outputs, columns] with int16 [rows, columns]; sums of int32, so that 8,192 columns with
# activations up to 2,047 are the most.
dot_int8 = _make_dot(INT8, INT16, INT32, _int8_to_int16, _add_integers, _int_lanes)
# Bit patterns of bfloat16 as uint16, with float32.
dot_bfloat16 = _make_dot(INT16, FLOAT, FLOAT, _bfloat16_to_float32, _add_floats, _float_lanes)
# float32 with float32.
dot_float32 = _make_dot(FLOAT, FLOAT, FLOAT, _identity, _add_floats, _float_lanes)


def _generate_int4(
    builder: Builder, arrays: list[list[Value]], first: Value, last: Value, ahead: Value
) -> list[Value]:
    """Code for int4: inner products over the groups `first` to `last`.

    The 32 bytes of a group are 16 words of four nibbles; nibble h of word i is column 16 h + i. So
    16 columns are one mask or shift away, in their order. A group's integers are summed exactly,
    in eight lanes, before they are converted and scaled; products and sums of floats are rounded
    one by one, so that every processor comes to the same bits.

    Args:
        builder: Writes the code.
        arrays: Rows of the packed weights, uint8 [outputs, columns / 2]; of their scales, bit
            patterns of bfloat16, [outputs, groups]; of the activations, int16 [rows, columns];
            and of the corrections, int32 [rows, groups]: -8 times the sum of a group's
            activations.
        first: Group.
        last: Group.
        ahead: See `_make_microkernel`.
    """
    packed, scales, inputs, corrections = arrays
    lanes, count = vector(FLOAT, 8), len(inputs)
    sums = _accumulators(builder, lanes, len(packed) * count)
    with cgutils.for_range_slice(builder, first, last, INT64(1)) as (group, _):
        byte = builder.mul(group, INT64(GROUP // 2))
        words = []
        for row in packed:
            _prefetch_lines(builder, row, byte, GROUP // 2, ahead)
            words.append(load(builder, row, byte, vector(INT16, 16)))
        totals = [_correction(builder, row, group) for _ in packed for row in corrections]
        for place in range(4):
            weights = [_extract_nibbles(builder, each, place) for each in words]
            column = builder.mul(group, INT64(2 * GROUP))
            for index, row in enumerate(inputs):
                at = builder.add(column, INT64(32 * place))
                values = load(builder, row, at, vector(INT16, 16))
                for output, multiplied in enumerate(weights):
                    here = output * count + index
                    totals[here] = add_products(
                        builder, totals[here], multiplied, values, neighbours=True
                    )
        for output, row in enumerate(scales):
            scale = _group_scale(builder, row, group)
            for index in range(count):
                here = output * count + index
                scaled = builder.fmul(builder.sitofp(totals[here], lanes), scale)
                builder.store(builder.fadd(builder.load(sums[here]), scaled), sums[here])
    return [reduce_add(builder, builder.load(place)) for place in sums]


def _extract_nibbles(builder: Builder, words: Value, place: int) -> Value:
    """The nibbles at a place of 16 words, int16 from 0 to 15."""
    kind = words.type
    shifted = builder.lshr(words, constant(kind, 4 * place)) if place else words
    return shifted if place == 3 else builder.and_(shifted, constant(kind, 15))


def _correction(builder: Builder, row: Value, group: Value) -> Value:
    """What a group's sum begins with: its correction in one lane of eight."""
    number = load(builder, row, builder.mul(group, INT64(4)), INT32)
    return builder.insert_element(ir.Constant(vector(INT32, 8), None), number, INT32(0))


def _group_scale(builder: Builder, row: Value, group: Value) -> Value:
    """A group's scale in eight lanes; the other half of each lane is shifted out."""
    bits = load(builder, row, builder.mul(group, INT64(2)), INT16)
    lanes = builder.bitcast(splat(builder, bits, 16), vector(INT32, 8))
    return builder.bitcast(builder.shl(lanes, constant(lanes.type, 16)), vector(FLOAT, 8))


dot_int4 = _make_microkernel(types.float32, _generate_int4)
