"""Micro-kernels of products with two to eight rows: one row of weights times all of them.

As in GEMV, columns lie in the lanes of vectors, and a sum takes the same steps. What is read of the
weights is prepared once for all rows, and in the end the sums of eight rows become one vector. Rows
that are not there are computed as copies of the last one.
"""
# Numba's own functions carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gpt_neox_japanese.kernels.constants import BLOCK, FLOAT_LANES, GROUP, MAX_FEW_ROWS
from gpt_neox_japanese.kernels.llvm import (
    FLOAT,
    INT8,
    INT16,
    INT32,
    INT64,
    add_products,
    load,
    shuffle,
    splat,
    store,
    vector,
)
from gpt_neox_japanese.kernels.microkernel import (
    add_floats,
    bfloat16_to_float32,
    for_each_step,
    int4_to_int16,
    int8_to_int16,
    prefetch_lines,
    size_of,
    sum_of_each,
)

__all__ = [
    "FEW_ROWS",
    "few_bfloat16",
    "few_float32",
    "few_int4",
    "few_int8",
    "few_outputs",
]

FEW_ROWS = 4  # that are computed at once; in int4 it may also be MAX_FEW_ROWS
_LINE = 64  # bytes of a cache line
_GROUPS = BLOCK // GROUP
_INT_COLUMNS = 32  # of int8 that are multiplied at a time

Builder = Any  # llvmlite and Numba have no types for what follows
Value = Any


class _Tile(NamedTuple):
    """What code is written with: see `_make_few`."""

    builder: Builder
    weights: list[Value]
    scales: Value
    inputs: list[Value]
    sums: Value
    count: Value
    ahead: Value


@intrinsic
def few_outputs(_: Any) -> Any:
    """How many outputs of float32, bfloat16 or int8 are computed at once, times four rows.

    Args:
        _: Numba's.
    """

    def code(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        return INT64(_outputs_at_once(context))

    return types.intp(), code


def _outputs_at_once(context: Any) -> int:
    """1, or 2 where the sums of two fit in registers."""
    _, _, features = context.codegen().magic_tuple()
    return 2 if "+avx512vl" in features.split(",") else 1


def _make_few(generate: Callable[[_Tile], None], *, is_plain: bool) -> Any:
    """Make a function of compiled code that adds products of one block of columns to sums.

    `(weights, next_weights, scales, inputs, stride, valid, sums, count, ahead, rows)` → nothing.

        weights       address of the block's weights of an output
        next_weights  bytes from there to those of the next output; 0 if it is not wanted
        scales        of int4, address of the block's scales, bit patterns of bfloat16
        inputs        address of the block's activations, of the first row
        stride        bytes from a row of activations to the next
        valid         how many rows there are
        sums          address of MAX_FEW_ROWS sums of each output: float32, of int8 int64
        count         columns of the block; of int4 groups
        ahead         prefetch distance in bytes: where the weights lie that will be read soon
        rows          constant: rows that are computed, valid or more

    Args:
        generate: Writes the code.
        is_plain: Whether `few_outputs` outputs are computed at once, rather than one.
    """

    @intrinsic(prefer_literal=True)
    def few(
        _: Any,
        weights: Any,
        next_weights: Any,
        scales: Any,
        inputs: Any,
        stride: Any,
        valid: Any,
        sums: Any,
        count: Any,
        ahead: Any,
        rows: Any,
    ) -> Any:
        def code(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            weights, following, scales, inputs, stride, valid, sums, count, ahead, _ = arguments
            weights, scales, inputs, sums = (
                builder.inttoptr(each, INT8.as_pointer())
                for each in (weights, scales, inputs, sums)
            )
            last, pointers = builder.sub(valid, INT64(1)), []
            for row in range(signature.args[-1].literal_value):
                is_there = builder.icmp_signed("<", INT64(row), valid)
                index = builder.select(is_there, INT64(row), last)
                pointers.append(builder.gep(inputs, [builder.mul(index, stride)]))
            outputs = [weights]
            if is_plain and _outputs_at_once(context) == 2:
                outputs.append(builder.gep(weights, [following]))
            generate(_Tile(builder, outputs, scales, pointers, sums, count, ahead))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 9, rows), code

    return few


def _add(tile: _Tile, total: Value, output: int = 0) -> None:
    """Add a vector to an output's sums in memory."""
    builder, add = tile.builder, tile.builder.fadd
    if total.type.element != FLOAT:
        total, add = builder.sext(total, vector(INT64, total.type.count)), builder.add
    at = INT64(output * MAX_FEW_ROWS * size_of(total.type.element))
    store(builder, add(load(builder, tile.sums, at, total.type), total), tile.sums, at)


def _generate_plain(
    tile: _Tile,
    weight_type: Value,
    input_type: Value,
    scalar: Value,
    columns: int,
    prepare: Callable[[Builder, Value], Value],
    add: Callable[[Builder, Value, Value, Value], Value],
) -> None:
    """Code for a format without groups: see `_make_few`; one row is `microkernel`'s."""
    builder, outputs = tile.builder, len(tile.weights)
    size = size_of(weight_type)
    step_columns = max(columns, _LINE // size)
    kind = vector(scalar, columns if scalar == FLOAT else columns // 2)
    zero = ir.Constant(kind, None)
    sums = [[cgutils.alloca_once_value(builder, zero) for _ in tile.inputs] for _ in tile.weights]

    def part(row: Value, kind: Value, column: Value) -> Value:
        return load(builder, row, builder.mul(column, INT64(size_of(kind))), vector(kind, columns))

    def step(rows: list[Value], column: Value) -> None:
        byte = builder.add(builder.mul(column, INT64(size)), tile.ahead)
        for row in rows[:outputs]:
            prefetch_lines(builder, row, byte, step_columns * size)
        for offset in range(0, step_columns, columns):
            at = builder.add(column, INT64(offset))
            weights = [prepare(builder, part(row, weight_type, at)) for row in rows[:outputs]]
            for index, row in enumerate(rows[outputs:]):
                values = part(row, input_type, at)
                for multiplied, places in zip(weights, sums, strict=True):
                    before = builder.load(places[index])
                    builder.store(add(builder, before, multiplied, values), places[index])

    sources = [(row, weight_type) for row in tile.weights]
    sources += [(row, input_type) for row in tile.inputs]
    for_each_step(builder, INT64(0), tile.count, step_columns, sources, step)
    add_halves = builder.fadd if scalar == FLOAT else builder.add
    eights = []
    for place in (place for places in sums for place in places):
        total = builder.load(place)
        halves = (shuffle(builder, total, range(first, first + 8)) for first in (0, 8))
        eights.append(add_halves(*halves))
    missing = [ir.Constant(eights[0].type, None)] * (MAX_FEW_ROWS - len(eights))
    total = sum_of_each(builder, eights + missing)
    for output in range(outputs):
        first = output * FEW_ROWS
        _add(tile, shuffle(builder, total, range(first, first + FEW_ROWS)), output)


def _generate_int4(tile: _Tile) -> None:
    """Code for int4: see `_make_few`, and `microkernel` for the order of nibbles and of sums.

    Eight sums are added up at once: those of one group and eight rows, or of two groups, four
    apart, and four rows.
    """
    builder, rows, (weights_row,) = tile.builder, len(tile.inputs), tile.weights
    distance = _GROUPS * rows // MAX_FEW_ROWS
    kind = vector(FLOAT, MAX_FEW_ROWS)
    scaled = cgutils.alloca_once(builder, ir.ArrayType(kind, distance))
    prefetch_lines(builder, weights_row, tile.ahead, BLOCK // 2)
    with cgutils.for_range(builder, INT64(distance)) as loop:
        totals, scales = [], []
        for first in range(0, _GROUPS, distance):
            group = builder.add(loop.index, INT64(first))
            is_there = builder.icmp_signed("<", group, tile.count)
            group = builder.select(is_there, group, INT64(0))
            weights = int4_to_int16(builder, weights_row, group)
            totals += [_sums_of_row(builder, row, group, weights) for row in tile.inputs]
            pattern = load(builder, tile.scales, builder.mul(group, INT64(2)), INT16)
            scales.append(builder.select(is_there, pattern, INT16(0)))
        first, last = (splat(builder, scales[index], MAX_FEW_ROWS) for index in (0, -1))
        patterns = shuffle(builder, first, [0, 1, 2, 3, 12, 13, 14, 15], last)
        floats = builder.sitofp(sum_of_each(builder, totals), kind)
        product = builder.fmul(floats, bfloat16_to_float32(builder, patterns))
        builder.store(product, builder.gep(scaled, [INT32(0), loop.index]))
    parts = [
        builder.load(builder.gep(scaled, [INT32(0), INT32(group)])) for group in range(distance)
    ]
    if distance < _GROUPS:
        zero = ir.Constant(kind, None)
        lower, upper = [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 8, 9, 10, 11]
        parts = [
            builder.fadd(shuffle(builder, each, lower, zero), shuffle(builder, each, upper, zero))
            for each in parts
        ]
    while len(parts) > 1:
        half = len(parts) // 2
        parts = [builder.fadd(*pair) for pair in zip(parts[:half], parts[half:], strict=True)]
    _add(tile, parts[0])


def _sums_of_row(builder: Builder, row: Value, group: Value, weights: list[Value]) -> Value:
    """Eight sums of a group's products."""
    total = ir.Constant(vector(INT32, GROUP // 8), None)
    for place, each in enumerate(weights):
        at = builder.add(builder.mul(group, INT64(2 * GROUP)), INT64(GROUP // 2 * place))
        total = add_products(builder, total, each, load(builder, row, at, each.type))
    return total


few_float32 = _make_few(
    partial(
        _generate_plain,
        weight_type=FLOAT,
        input_type=FLOAT,
        scalar=FLOAT,
        columns=FLOAT_LANES,
        prepare=lambda builder, weights: weights,
        add=add_floats,
    ),
    is_plain=True,
)
few_bfloat16 = _make_few(
    partial(
        _generate_plain,
        weight_type=INT16,
        input_type=FLOAT,
        scalar=FLOAT,
        columns=FLOAT_LANES,
        prepare=bfloat16_to_float32,
        add=add_floats,
    ),
    is_plain=True,
)
few_int8 = _make_few(
    partial(
        _generate_plain,
        weight_type=INT8,
        input_type=INT16,
        scalar=INT32,
        columns=_INT_COLUMNS,
        prepare=int8_to_int16,
        add=add_products,
    ),
    is_plain=True,
)
few_int4 = _make_few(_generate_int4, is_plain=False)
