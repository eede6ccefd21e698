"""Inner products of a row of weights with a few rows of activations, a stretch at a time.

Each function here becomes a loop over vectors inside its caller. `rows` is a constant, so that all
sums stay in registers. One sum takes the same steps whatever `rows` is.
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

from gpt_neox_japanese.quantization.kernel_vectors import (
    FLOAT,
    INT8,
    INT16,
    INT32,
    INT64,
    add_lanes,
    constant,
    fused,
    load,
    pair_products,
    prefetch,
    rows_of,
    spread,
    vector,
)

__all__ = ["GROUP", "dot_bfloat", "dot_float", "dot_int4", "dot_int8"]

# Bytes of int4 between what is read and what is asked for, where weights are read in their order.
# The processor alone asks too late for them: so much is done with each byte. For the other formats
# this is no gain.
_AHEAD = 2048

GROUP = 64  # columns that share a scale in int4

# Lanes of one sum of floats. They are part of the result: another number rounds differently.
_FLOAT_LANES = 32
# Any number gives the same integers. Fewer sums at once need more lanes to keep the units busy.
_INT_LANES = {1: 64, 2: 32, 4: 16, 8: 16}

_Step = Callable[[Any, Any], None]


def _for_each_vector(
    builder: Any, first: Any, last: Any, lanes: int, sources: list[tuple[Any, Any]], step: Any
) -> None:
    """Give `step` the vectors of all sources that hold columns `first` to `last`.

    The last vector is filled up with zeros.

    Args:
        builder: Writes the code.
        first: Column, int64.
        last: Column, int64.
        lanes: Columns of a vector.
        sources: Byte pointer to a row, and type of its elements.
        step: Called with the list of vectors, one a source; twice, for two places in the code.
    """
    whole = builder.add(first, builder.and_(builder.sub(last, first), INT64(-lanes)))

    def size_of(scalar: Any) -> int:
        return 4 if scalar == FLOAT else int(scalar.width) // 8

    def place(column: Any, scalar: Any) -> Any:
        return builder.mul(column, INT64(size_of(scalar)))

    with cgutils.for_range_slice(builder, first, whole, INT64(lanes)) as (column, _):
        step(
            [
                load(builder, row, place(column, scalar), vector(scalar, lanes))
                for row, scalar in sources
            ]
        )
    with builder.if_then(builder.icmp_signed("<", whole, last), likely=False):
        vectors = []
        for row, scalar in sources:
            kind = vector(scalar, lanes)
            buffer = cgutils.alloca_once(builder, kind)
            builder.store(ir.Constant(kind, None), buffer)
            rest = builder.gep(row, [place(whole, scalar)])
            cgutils.raw_memcpy(builder, buffer, rest, builder.sub(last, whole), size_of(scalar))
            vectors.append(builder.load(buffer))
        step(vectors)


def _sums(builder: Any, kind: Any, count: int) -> list[Any]:
    """Places for sums that begin at zero; LLVM keeps them in registers."""
    return [cgutils.alloca_once_value(builder, ir.Constant(kind, None)) for _ in range(count)]


def _dot(weight_type: Any, input_type: Any, result: Any, prepare: Any, add: Any, lanes: Any) -> Any:
    """A function `(weights, inputs, output, row, first, last, rows)` → tuple of `rows` sums.

    Args:
        weight_type: Element of the weights.
        input_type: Element of the activations.
        result: Numba type of a sum.
        prepare: `(builder, weights)` → what is multiplied.
        add: `(builder, sums, weights, inputs)` → sums.
        lanes: `rows` → lanes of the weights and of the sums.
    """

    @intrinsic(prefer_literal=True)
    def dot(
        _: Any, weights: Any, inputs: Any, output: Any, row: Any, first: Any, last: Any, rows: Any
    ) -> Any:
        word = types.intp
        count = rows.literal_value
        signature = types.UniTuple(result, count)(weights, inputs, word, word, word, word, rows)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            weights, inputs, output, row, first, last, _ = arguments
            columns, sum_lanes = lanes(count)
            scalar = FLOAT if result is types.float32 else INT32
            sums = _sums(builder, vector(scalar, sum_lanes), count)
            source = rows_of(context, builder, signature.args[0], weights, output, 1)
            others = rows_of(context, builder, signature.args[1], inputs, row, count)

            def step(vectors: list[Any]) -> None:
                ready = prepare(builder, vectors[0])
                for place, other in zip(sums, vectors[1:], strict=True):
                    builder.store(add(builder, builder.load(place), ready, other), place)

            sources = [(source[0], weight_type), *((other, input_type) for other in others)]
            _for_each_vector(builder, first, last, columns, sources, step)
            totals = [add_lanes(builder, builder.load(place)) for place in sums]
            return context.make_tuple(builder, signature.return_type, totals)

        return signature, generate

    return dot


def _widen_int8(builder: Any, weights: Any) -> Any:
    return builder.sext(weights, vector(INT16, weights.type.count))


def _widen_bfloat(builder: Any, weights: Any) -> Any:
    kind = vector(INT32, weights.type.count)
    bits = builder.shl(builder.zext(weights, kind), constant(kind, 16))
    return builder.bitcast(bits, vector(FLOAT, weights.type.count))


def _keep(_: Any, weights: Any) -> Any:
    return weights


def _add_pairs(builder: Any, sums: Any, weights: Any, inputs: Any) -> Any:
    return builder.add(sums, pair_products(builder, weights, inputs))


def _add_floats(builder: Any, sums: Any, weights: Any, inputs: Any) -> Any:
    return fused(builder, weights, inputs, sums)


def _int_lanes(rows: int) -> tuple[int, int]:
    return _INT_LANES[rows], _INT_LANES[rows] // 2


def _float_lanes(_: int) -> tuple[int, int]:
    return _FLOAT_LANES, _FLOAT_LANES


# int8 `(outputs, columns)` with int16 `(rows, columns)`; sums of int32, so that 8,192 columns with
# activations up to 2,047 are the most.
dot_int8 = _dot(INT8, INT16, types.int32, _widen_int8, _add_pairs, _int_lanes)
# Bit patterns of bfloat16 as uint16, with float32.
dot_bfloat = _dot(INT16, FLOAT, types.float32, _widen_bfloat, _add_floats, _float_lanes)
# float32 with float32.
dot_float = _dot(FLOAT, FLOAT, types.float32, _keep, _add_floats, _float_lanes)


@intrinsic(prefer_literal=True)
def dot_int4(
    _: Any,
    packed: Any,
    scales: Any,
    inputs: Any,
    corrections: Any,
    output: Any,
    row: Any,
    first: Any,
    last: Any,
    rows: Any,
) -> Any:
    """Inner products over the groups `first` to `last`, a tuple of `rows` float32.

    The 32 bytes of a group are 16 words of four nibbles; nibble h of word i is column 16 h + i. So
    16 columns are one mask or shift away, in their order. A group's integers are summed exactly,
    in eight lanes, before they are converted and scaled; products and sums of floats are rounded
    one by one, so that every processor comes to the same bits.

    Args:
        packed: uint8 `(outputs, columns / 2)`.
        scales: Bit patterns of bfloat16 as uint16, `(outputs, groups)`.
        inputs: int16 `(rows, columns)`.
        corrections: int32 `(rows, groups)`: -8 times the sum of a group's activations.
        output: Row of the weights.
        row: First row of the activations.
        first: Group.
        last: Group.
        rows: Constant number of rows.
    """
    word = types.intp
    count = rows.literal_value
    signature = types.UniTuple(types.float32, count)(
        packed, scales, inputs, corrections, word, word, word, word, rows
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *arrays, output, row, first, last, _ = arguments
        places = ((output, 1), (output, 1), (row, count), (row, count))
        (nibbles,), (factors,), activations, offsets = (
            rows_of(context, builder, kind, array, start, number)
            for kind, array, (start, number) in zip(signature.args, arrays, places, strict=False)
        )
        lanes = vector(FLOAT, 8)
        sums = _sums(builder, lanes, count)
        with cgutils.for_range_slice(builder, first, last, INT64(1)) as (group, _index):
            if count == 1:
                byte = builder.add(builder.mul(group, INT64(GROUP // 2)), INT64(_AHEAD))
                prefetch(builder, nibbles, byte)
            weights = _unpack(builder, nibbles, group)
            scale = _group_scale(builder, factors, group)
            for place, quantised, offset in zip(sums, activations, offsets, strict=True):
                correction = load(builder, offset, builder.mul(group, INT64(4)), INT32)
                total = builder.insert_element(
                    ir.Constant(vector(INT32, 8), None), correction, INT32(0)
                )
                start = builder.mul(group, INT64(2 * GROUP))
                for index, part in enumerate(weights):
                    byte = builder.add(start, INT64(32 * index))
                    values = load(builder, quantised, byte, vector(INT16, 16))
                    total = builder.add(total, pair_products(builder, part, values))
                scaled = builder.fmul(builder.sitofp(total, lanes), scale)
                builder.store(builder.fadd(builder.load(place), scaled), place)
        totals = [add_lanes(builder, builder.load(place)) for place in sums]
        return context.make_tuple(builder, signature.return_type, totals)

    return signature, generate


def _unpack(builder: Any, nibbles: Any, group: Any) -> list[Any]:
    """The four times 16 nibbles of a group, int16 from 0 to 15."""
    kind = vector(INT16, 16)
    words = load(builder, nibbles, builder.mul(group, INT64(GROUP // 2)), kind)
    shifted = [builder.lshr(words, constant(kind, 4 * place)) for place in range(4)]
    mask = constant(kind, 15)
    return [*(builder.and_(part, mask) for part in shifted[:3]), shifted[3]]


def _group_scale(builder: Any, factors: Any, group: Any) -> Any:
    """A group's scale in eight lanes; the other half of each lane is shifted out."""
    bits = load(builder, factors, builder.mul(group, INT64(2)), INT16)
    lanes = builder.bitcast(spread(builder, bits, 16), vector(INT32, 8))
    return builder.bitcast(builder.shl(lanes, constant(lanes.type, 16)), vector(FLOAT, 8))
