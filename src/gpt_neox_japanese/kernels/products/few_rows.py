"""Micro-kernels of products with a few rows: one or two rows of weights times four or eight.

As in GEMV, columns lie in the lanes of vectors, and a sum takes the same steps. What is read of the
weights is prepared once for all rows, and in the end eight sums become one vector. Rows that are
not there are computed as copies of the last one.
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

from gpt_neox_japanese.kernels.constants import FLOAT_LANES, GROUP
from gpt_neox_japanese.kernels.llvm import (
    FLOAT,
    INT8,
    INT16,
    INT32,
    INT64,
    add_products,
    load,
    shuffle,
    store,
    vector,
)
from gpt_neox_japanese.kernels.products.microkernel import (
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
    "MORE_ROWS",
    "few_bfloat16",
    "few_float32",
    "few_int4",
    "few_int8",
    "few_outputs",
    "more_int4",
]

FEW_ROWS = 4  # that are computed at once
MORE_ROWS = 8  # that may be, where registers are many
_SUMS = 8  # that become one vector
_LINE = 64  # bytes of a cache line
_INT_COLUMNS = 32  # of integers that are multiplied at a time

Builder = Any  # llvmlite and Numba have no types for what follows
Value = Any


class _Tile(NamedTuple):
    """What code is written with: see `_make_few`."""

    builder: Builder
    weights: list[Value]
    multipliers: list[Value]
    inputs: list[Value]
    sums: list[Value]
    count: Value
    ahead: Value


@intrinsic
def few_outputs(_: Any) -> Any:
    """How many outputs are computed at once, times FEW_ROWS rows or, if it is 2, MORE_ROWS.

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


def _make_few(generate: Callable[[_Tile], None], rows: int = FEW_ROWS) -> Any:
    """Make a function of compiled code that adds products of one block of columns to sums.

    `(weights, next_weights, multipliers, next_multipliers, inputs, stride, valid, sums, next_sums,
    count, ahead)` → nothing; `few_outputs` outputs are computed at once.

        weights           address of the block's weights of an output
        next_weights      bytes from there to those of the next output; 0 if it is not wanted
        multipliers       of int4, address of the block's multipliers of an output
        next_multipliers  bytes from there to those of the next output
        inputs            address of the block's activations, of the first row
        stride            bytes from a row of activations to the next
        valid             how many rows there are; if they are more, the first are taken
        sums              address of an output's sums, of all rows: float32, of integers int64
        next_sums         bytes from there to those of the next output
        count             columns of the block; of int4 groups
        ahead             prefetch distance in bytes: where the weights lie that will be read soon

    Args:
        generate: Writes the code.
        rows: That are computed.
    """

    @intrinsic
    def few(
        _: Any,
        weights: Any,
        next_weights: Any,
        multipliers: Any,
        next_multipliers: Any,
        inputs: Any,
        stride: Any,
        valid: Any,
        sums: Any,
        next_sums: Any,
        count: Any,
        ahead: Any,
    ) -> Any:
        def code(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            weights, next_weights, multipliers, next_multipliers = arguments[:4]
            inputs, stride, valid, sums, next_sums, count, ahead = arguments[4:]
            inputs = builder.inttoptr(inputs, INT8.as_pointer())
            last, pointers = builder.sub(valid, INT64(1)), []
            for row in range(rows):
                is_there = builder.icmp_signed("<", INT64(row), valid)
                index = builder.select(is_there, INT64(row), last)
                pointers.append(builder.gep(inputs, [builder.mul(index, stride)]))

            def of_outputs(first: Value, following: Value) -> list[Value]:
                start = builder.inttoptr(first, INT8.as_pointer())
                both = [start, builder.gep(start, [following])]
                return both[: _outputs_at_once(context)]

            generate(
                _Tile(
                    builder,
                    of_outputs(weights, next_weights),
                    of_outputs(multipliers, next_multipliers),
                    pointers,
                    of_outputs(sums, next_sums),
                    count,
                    ahead,
                )
            )
            return context.get_dummy_value()

        return types.void(*[types.intp] * 11), code

    return few


def _make_sums(tile: _Tile, kind: Value) -> list[list[Value]]:
    """Places for a vector of sums of each output and row."""
    zero = ir.Constant(kind, None)
    return [
        [cgutils.alloca_once_value(tile.builder, zero) for _ in tile.inputs] for _ in tile.weights
    ]


def _multiply(
    builder: Builder,
    sums: list[list[Value]],
    weights: list[Value],
    inputs: list[Value],
    kind: Value,
    at: Value,
    add: Callable[[Builder, Value, Value, Value], Value],
) -> None:
    """Add products of one vector of weights of each output with that of each row.

    Args:
        builder: Writes the code.
        sums: By `_make_sums`.
        weights: Vectors.
        inputs: Byte pointers to rows of activations.
        kind: Type of a vector of activations.
        at: Where it lies in a row.
        add: `(builder, sums, weights, inputs)` → sums.
    """
    for index, row in enumerate(inputs):
        values = load(builder, row, at, kind)
        for each, places in zip(weights, sums, strict=True):
            total = add(builder, builder.load(places[index]), each, values)
            builder.store(total, places[index])


def _add_up(tile: _Tile, sums: list[list[Value]], total: Value) -> None:
    """Add up the lanes of all sums, as numbers of type `total`, and add them to those in memory."""
    builder, eights = tile.builder, []
    for place in (place for places in sums for place in places):
        lanes = builder.load(place)
        if lanes.type.element != total:
            lanes = builder.sext(lanes, vector(total, lanes.type.count))
        halves = (shuffle(builder, lanes, range(at, at + _SUMS)) for at in (0, _SUMS))
        eights.append((builder.fadd if total == FLOAT else builder.add)(*halves))
    missing = [ir.Constant(eights[0].type, None)] * (-len(eights) % _SUMS)
    rows, totals = len(tile.inputs), []
    for first in range(0, len(eights), _SUMS):
        eight = sum_of_each(builder, (eights + missing)[first : first + _SUMS])
        totals += [shuffle(builder, eight, range(at, at + rows)) for at in range(0, _SUMS, rows)]
    for place, sums_of_rows in zip(tile.sums, totals[: len(tile.sums)], strict=True):
        add = builder.fadd if total == FLOAT else builder.add
        if total == INT32:
            sums_of_rows = builder.sext(sums_of_rows, vector(INT64, rows))
        before = load(builder, place, INT64(0), sums_of_rows.type)
        store(builder, add(before, sums_of_rows), place, INT64(0))


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
    builder, outputs, size = tile.builder, len(tile.weights), size_of(weight_type)
    step_columns = max(columns, _LINE // size)
    sums = _make_sums(tile, vector(scalar, columns if scalar == FLOAT else columns // 2))

    def step(rows: list[Value], column: Value) -> None:
        byte = builder.add(builder.mul(column, INT64(size)), tile.ahead)
        for row in rows[:outputs]:
            prefetch_lines(builder, row, byte, step_columns * size)
        for offset in range(0, step_columns, columns):
            column_at = builder.add(column, INT64(offset))
            at = builder.mul(column_at, INT64(size))
            weights = [
                prepare(builder, load(builder, row, at, vector(weight_type, columns)))
                for row in rows[:outputs]
            ]
            at = builder.mul(column_at, INT64(size_of(input_type)))
            kind = vector(input_type, columns)
            _multiply(builder, sums, weights, rows[outputs:], kind, at, add)

    sources = [(row, weight_type) for row in tile.weights]
    sources += [(row, input_type) for row in tile.inputs]
    for_each_step(builder, INT64(0), tile.count, step_columns, sources, step)
    _add_up(tile, sums, scalar)


def _generate_int4(tile: _Tile) -> None:
    """Code for int4: see `_make_few`. The sum of all lanes may take more than 32 bits."""
    builder, kind = tile.builder, vector(INT16, _INT_COLUMNS)
    sums = _make_sums(tile, vector(INT32, _INT_COLUMNS // 2))
    with cgutils.for_range(builder, tile.count) as loop:
        byte = builder.add(builder.mul(loop.index, INT64(GROUP // 2)), tile.ahead)
        for row in tile.weights:
            prefetch_lines(builder, row, byte, GROUP // 2)
        unpacked = [
            int4_to_int16(builder, row, loop.index, multipliers)
            for row, multipliers in zip(tile.weights, tile.multipliers, strict=True)
        ]
        for place, weights in enumerate(zip(*unpacked, strict=True)):
            at = builder.add(builder.mul(loop.index, INT64(2 * GROUP)), INT64(GROUP * place))
            _multiply(builder, sums, list(weights), tile.inputs, kind, at, add_products)
    _add_up(tile, sums, INT64)


few_float32 = _make_few(
    partial(
        _generate_plain,
        weight_type=FLOAT,
        input_type=FLOAT,
        scalar=FLOAT,
        columns=FLOAT_LANES,
        prepare=lambda builder, weights: weights,
        add=add_floats,
    )
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
    )
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
    )
)
few_int4, more_int4 = (_make_few(_generate_int4, rows) for rows in (FEW_ROWS, MORE_ROWS))
