"""Micro-kernels of GEMM: a tile of a product, some outputs times a panel of rows.

The rows of a panel lie in the lanes of vectors, and each weight is broadcast to all of them: so a
row is computed alike whatever rows lie beside it, and no lanes have to be added up. The sums of a
tile stay in registers; how many outputs a tile has therefore depends on the processor.

Weights come from a buffer, [outputs, BLOCK] of float32 or int16, and are of one block of columns.
Where the order of sums matters, it is that of GEMV, whose lanes are columns: what one lane adds up
there is added up here as one part, and the parts are added as GEMV adds its lanes, in halves.
Taking the parts in the order of their reversed bits, no more than one half-finished sum of each
size waits for its other half: like the carry of a binary counter.
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

from gpt_neox_japanese.kernels.constants import BLOCK, FLOAT_LANES
from gpt_neox_japanese.kernels.llvm import (
    ARM,
    FLOAT,
    INT8,
    INT16,
    INT32,
    INT64,
    add_products,
    broadcast_pair,
    constant,
    fmuladd,
    load,
    prefetch,
    splat,
    store,
    vector,
)

__all__ = [
    "BUFFER_COLUMNS",
    "SPARE_TILES",
    "outputs_of_tile",
    "tile_bfloat16",
    "tile_float32",
    "tile_int4",
    "tile_int8",
    "tile_outputs",
]

BUFFER_COLUMNS = BLOCK + 32  # of a row of widened weights: no two begin in the same cache set
_LINE = 64  # bytes of a cache line
SPARE_TILES = FLOAT_LANES.bit_length()  # tiles of half-finished sums

# Vectors of sums in a tile: the other registers hold what is multiplied.
_SUMS_SSE, _SUMS_AVX2, _SUMS_OF_32_REGISTERS = 8, 12, 24
# Their weights of a block lie in half of the L1 cache: bytes of a weight → outputs at most.
_MAX_OUTPUTS = {4: 8, 2: 12}

Builder = Any  # llvmlite and Numba have no types for what follows
Value = Any


def outputs_of_tile(rows: int, size: int, features: str) -> int:
    """How many outputs a tile has.

    Args:
        rows: Of a panel, a multiple of the lanes of a vector.
        size: Bytes of a widened weight.
        features: Of the processor, as LLVM lists them.

    Returns:
        From 2 to 12.
    """
    enabled = features.split(",")
    lanes, sums = 4, _SUMS_OF_32_REGISTERS if ARM else _SUMS_SSE
    if "+avx2" in enabled:
        lanes, sums = 8, _SUMS_AVX2
    if "+avx512vl" in enabled:
        lanes, sums = 16, _SUMS_OF_32_REGISTERS
    return min(sums * lanes // rows, _MAX_OUTPUTS[size])


def _tile_outputs(context: Any, rows: int, size: int) -> int:
    _, _, features = context.codegen().magic_tuple()
    return outputs_of_tile(rows, size, features)


@intrinsic(prefer_literal=True)
def tile_outputs(_: Any, rows: Any, size: Any) -> Any:
    """How many outputs a tile has on this processor.

    Args:
        _: Numba's.
        rows: Of a panel, a constant.
        size: Bytes of a widened weight, a constant.
    """

    def code(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        return INT64(_tile_outputs(context, *(kind.literal_value for kind in signature.args)))

    return types.intp(rows, size), code


class _Tile(NamedTuple):
    """What code for a tile is written with: see `_make_tile`."""

    builder: Builder
    panel: Value
    weights: Value
    sums: Value
    spare: Value
    ahead: Value
    stride: Value
    ahead_stride: Value
    count: Value
    rows: int
    outputs: int


def _make_tile(generate: Callable[[_Tile], None], size: int) -> Any:
    """Make a function of compiled code that adds a tile's products of one block of columns.

    `(panel, weights, sums, spare, ahead, stride, ahead_stride, count, rows)` → nothing. The first
    five are addresses:

        panel         the block's activations: see `gemm.pack_floats` and `gemm.pack_integers`
        weights       the first output's, [outputs, BUFFER_COLUMNS]
        sums          the first output's, of the panel's rows: float32, of integers int64
        spare         room for SPARE_TILES tiles of float32
        ahead         the first output's stored weights that are prefetched, a block; 0 for none
        stride        bytes from the sums of one output to those of the next
        ahead_stride  bytes from the stored weights of one output to those of the next
        count         floats: columns of a lane; integers: pairs of columns
        rows          of the panel, a constant

    Args:
        generate: Writes the code.
        size: Bytes of a widened weight.
    """

    @intrinsic(prefer_literal=True)
    def tile(
        _: Any,
        panel: Any,
        weights: Any,
        sums: Any,
        spare: Any,
        ahead: Any,
        stride: Any,
        ahead_stride: Any,
        count: Any,
        rows: Any,
    ) -> Any:
        def code(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
            rows = signature.args[-1].literal_value
            pointers = [builder.inttoptr(each, INT8.as_pointer()) for each in arguments[:5]]
            outputs = _tile_outputs(context, rows, size)
            values: list[Value] = [*pointers, *arguments[5:8], rows, outputs]
            generate(_Tile._make([builder, *values]))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 8, rows), code

    return tile


def _accumulators(tile: _Tile, scalar: Value) -> list[Value]:
    """A sum for each output, in the lanes of the rows; LLVM keeps them in registers."""
    kind = vector(scalar, tile.rows)
    return [cgutils.alloca_once(tile.builder, kind) for _ in range(tile.outputs)]


def _clear(builder: Builder, places: list[Value]) -> None:
    for place in places:
        builder.store(ir.Constant(place.type.pointee, None), place)


def _reversed(builder: Builder, index: Value, count: int) -> Value:
    """A number below `count`, a power of two, with its bits reversed."""
    bits = count.bit_length() - 1
    return builder.lshr(builder.bitreverse(index), INT64(64 - bits))


def _prefetch(tile: _Tile, part: Value, size: int) -> None:
    """Ask for the `part`-th `size` bytes of each output's next weights.

    Few at a time: a processor waits once some twenty lines are on their way.
    """
    builder = tile.builder
    is_wanted = builder.icmp_unsigned("!=", tile.ahead, ir.Constant(tile.ahead.type, None))
    with builder.if_then(is_wanted):
        start = builder.mul(part, INT64(size))
        for output in range(tile.outputs):
            row = builder.add(start, builder.mul(tile.ahead_stride, INT64(output)))
            for line in range(0, size, _LINE):
                prefetch(builder, tile.ahead, builder.add(row, INT64(line)), cache=1)


def _carry(tile: _Tile, part: Value, parts: list[Value]) -> None:
    """Add to a part, the `part`-th, what waits for it, and let the sum wait for its other half."""
    builder, kind = tile.builder, parts[0].type.pointee
    size = kind.count * 4

    def place(level: Value, index: int) -> Value:
        return builder.add(builder.mul(level, INT64(len(parts) * size)), INT64(index * size))

    carries = builder.cttz(builder.not_(part), ir.IntType(1)(0))
    with cgutils.for_range(builder, carries) as loop:
        for index, each in enumerate(parts):
            waiting = load(builder, tile.spare, place(loop.index, index), kind)
            builder.store(builder.fadd(waiting, builder.load(each)), each)
    for index, each in enumerate(parts):
        store(builder, builder.load(each), tile.spare, place(carries, index))


def _add_to_sums(tile: _Tile, added: Callable[[int], Value]) -> None:
    """Add a vector for each output to the sums in memory."""
    builder = tile.builder
    for output in range(tile.outputs):
        at, value = builder.mul(tile.stride, INT64(output)), added(output)
        add = builder.fadd if value.type.element == FLOAT else builder.add
        store(builder, add(load(builder, tile.sums, at, value.type), value), tile.sums, at)


def _add_tree(tile: _Tile, parts: int) -> None:
    """Add the sum of all parts, which waits last, to the sums in memory."""
    kind, first = vector(FLOAT, tile.rows), (parts.bit_length() - 1) * tile.outputs

    def total(output: int) -> Value:
        return load(tile.builder, tile.spare, INT64((first + output) * kind.count * 4), kind)

    _add_to_sums(tile, total)


def _add_pairs(tile: _Tile, first: Value, pairs: Value, sums: list[Value]) -> None:
    """Add products of int16, two columns at a time, to sums of int32.

    Args:
        tile: Its panel is [pairs, rows, 2], on Arm [pairs, 2, rows].
        first: The first pair.
        pairs: How many.
        sums: Of each output.
    """
    builder, rows = tile.builder, tile.rows
    panel = builder.gep(tile.panel, [builder.mul(first, INT64(4 * rows))])
    weights = builder.gep(tile.weights, [builder.mul(first, INT64(4))])
    with cgutils.for_range(builder, pairs) as loop:
        byte = builder.mul(loop.index, INT64(4 * rows))
        values = load(builder, panel, byte, vector(INT16, 2 * rows))
        column = builder.mul(loop.index, INT64(4))
        for output, place in enumerate(sums):
            at = builder.add(column, INT64(output * BUFFER_COLUMNS * 2))
            pair = broadcast_pair(builder, load(builder, weights, at, INT32), rows)
            builder.store(add_products(builder, builder.load(place), values, pair), place)


def _generate_floats(tile: _Tile, size: int) -> None:
    """Code for floats that are stored in `size` bytes: see `_make_tile`."""
    builder, rows, kind = tile.builder, tile.rows, vector(FLOAT, tile.rows)
    parts = _accumulators(tile, FLOAT)
    with cgutils.for_range(builder, INT64(FLOAT_LANES)) as loop:
        _prefetch(tile, loop.index, BLOCK * size // FLOAT_LANES)
        _clear(builder, parts)
        lane = _reversed(builder, loop.index, FLOAT_LANES)
        weights = builder.gep(tile.weights, [builder.mul(lane, INT64(4))])
        start = builder.mul(builder.mul(loop.index, tile.count), INT64(4 * rows))
        panel = builder.gep(tile.panel, [start])
        with cgutils.for_range(builder, tile.count) as columns:
            values = load(builder, panel, builder.mul(columns.index, INT64(4 * rows)), kind)
            column = builder.mul(columns.index, INT64(4 * FLOAT_LANES))
            for output, place in enumerate(parts):
                at = builder.add(column, INT64(output * BUFFER_COLUMNS * 4))
                weight = splat(builder, load(builder, weights, at, FLOAT), rows)
                builder.store(fmuladd(builder, weight, values, builder.load(place)), place)
        _carry(tile, loop.index, parts)
    _add_tree(tile, FLOAT_LANES)


def _generate_integers(tile: _Tile, pairs: int, *, carries: bool) -> None:
    """Code for integers: see `_make_tile`. Sums are exact, a block's in int32, of all in int64.

    Args:
        tile: What code is written with.
        pairs: Of columns that are stored in a cache line, which is prefetched before them.
        carries: Whether a block's sums take more than 32 bits, though those of these columns do
            not: then their upper halves go to sums of their own.
    """
    builder, totals = tile.builder, _accumulators(tile, INT32)
    uppers = _accumulators(tile, INT32) if carries else []
    _clear(builder, totals + uppers)
    parts = builder.udiv(builder.add(tile.count, INT64(pairs - 1)), INT64(pairs))
    with cgutils.for_range(builder, parts) as loop:
        _prefetch(tile, loop.index, _LINE)
        first = builder.mul(loop.index, INT64(pairs))
        left = builder.sub(tile.count, first)
        is_last = builder.icmp_signed("<", left, INT64(pairs))
        _add_pairs(tile, first, builder.select(is_last, left, INT64(pairs)), totals)
        if carries:
            for total, upper in zip(totals, uppers, strict=True):
                value = builder.load(total)
                half = builder.ashr(value, constant(value.type, 16))
                builder.store(builder.add(builder.load(upper), half), upper)
                builder.store(builder.and_(value, constant(value.type, 2**16 - 1)), total)
    wide = vector(INT64, tile.rows)

    def added(output: int) -> Value:
        lower = builder.sext(builder.load(totals[output]), wide)
        if not carries:
            return lower
        upper = builder.sext(builder.load(uppers[output]), wide)
        return builder.add(lower, builder.shl(upper, constant(wide, 16)))

    _add_to_sums(tile, added)


tile_float32 = _make_tile(partial(_generate_floats, size=4), 4)
tile_bfloat16 = _make_tile(partial(_generate_floats, size=2), 4)
tile_int8 = _make_tile(partial(_generate_integers, pairs=_LINE // 2, carries=False), 2)
tile_int4 = _make_tile(partial(_generate_integers, pairs=_LINE, carries=True), 2)
