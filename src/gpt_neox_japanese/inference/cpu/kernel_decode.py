"""One step of the network for up to eight tokens at once, as one compiled function.

Every thread of a team runs `serve` at the same time. Within a phase they take parts of the work as
they come free; between two phases they meet. A layer has five phases:

    1. `query_key_value`
    2. what each head takes from the cache, after its new keys and values have been stored there
    3. `dense`, added to the hidden state
    4. `dense_h_to_4h`
    5. GELU and `dense_4h_to_h`, added to the hidden state

Layer norms, and the rounding of activations for integer weights, are done by every thread for
itself: that takes less time than to meet once more.

A token is given by its id, the slot of the cache that it belongs to, and its position there. Tokens
of one slot may stand beside each other, the earlier first. What is computed for a token is the
same to the last bit whatever tokens there are beside it.
"""

from __future__ import annotations

from typing import NamedTuple

from gpt_neox_japanese.inference.cpu.kernel_barrier import STRIDE, add, meet, take, wait_for
from gpt_neox_japanese.inference.cpu.kernel_dispatch import Rounded, embed, multiply, round_rows
from gpt_neox_japanese.kernels.bfloat16 import matrix_at
from gpt_neox_japanese.kernels.compile import (
    Floats,
    Longs,
    Number,
    compiled,
    entry,
)
from gpt_neox_japanese.kernels.ops import add_rows, attend, gelu, normalize, rotate, store

__all__ = ["FIELDS", "GO", "Plan", "begin", "counter_words", "serve"]

# A row of `Plan.layers`: addresses of tensors. A matrix has two, its numbers and its scales.
NORM_1, QKV, DENSE, DENSE_BIAS, NORM_2, WIDEN, NARROW, FIELDS = 0, 1, 3, 5, 6, 7, 9, 11

# A row of `Plan.tokens`.
ID, SLOT, POSITION = 0, 1, 2

# `Plan.job`: how many tokens there are, and how many at their beginning need no scores.
COUNT, UNSCORED = 0, 1

GO = STRIDE  # word of `Plan.counters` that counts steps

_PHASES = 5
_FIRST_PHASE = 2  # counter 0 counts meetings, counter 1 steps
_PARTS = 4  # pieces of work for each thread in a phase, so that a slow one can leave some
_ROWS_AT_ONCE = 8  # rows of a matrix are shared out in multiples of this


class Plan(NamedTuple):
    """All that a step reads and writes. It is made once, and every array keeps its place.

    Attributes:
        matrix: Empty; its dtype says how the layers' matrices are stored (`kernel_products`).
        table: As `matrix`, for the embedding and the head.
        layers: int64 `(layers, FIELDS)`.
        ends: int64 `(2, 2)`: numbers and scales of the embedding and of the head.
        final_norm: float32 `(2, hidden)`.
        cos: float32 `(positions, rotated / 2)`.
        sin: As `cos`.
        epsilon: float32, of the layer norms.
        tanh: Whether GELU is the approximation with tanh.
        keys: `(layers, slots, heads, capacity, head_dim)`, float32 or bfloat16 as uint16.
        values: As `keys`.
        counters: int64, see `counter_words`.
        job: int64 `(2,)`.
        tokens: int64 `(3, MOST_ROWS)`.
        hidden: float32 `(MOST_ROWS, hidden)`.
        packed: float32 `(MOST_ROWS, 3 * hidden)`: query, key and value of each head in turn.
        mixed: float32 `(MOST_ROWS, hidden)`.
        wide: float32 `(MOST_ROWS, width of the MLP)`.
        update: float32 `(MOST_ROWS, hidden)`.
        logits: float32 `(MOST_ROWS, vocabulary)`, the result.
        normed: float32 `(threads, MOST_ROWS, hidden)`.
        scores: float32 `(threads, capacity)`.
        rounded: Room for activations as integers.
    """

    matrix: Number
    table: Number
    layers: Longs
    ends: Longs
    final_norm: Floats
    cos: Floats
    sin: Floats
    epsilon: Number
    tanh: bool
    keys: Number
    values: Number
    counters: Longs
    job: Longs
    tokens: Longs
    hidden: Floats
    packed: Floats
    mixed: Floats
    wide: Floats
    update: Floats
    logits: Floats
    normed: Floats
    scores: Floats
    rounded: Rounded


def counter_words(layers: int) -> int:
    """How many int64 the counters of a network take."""
    return (_FIRST_PHASE + layers * _PHASES + 1) * STRIDE


@compiled
def _normalize(plan: Plan, norm: Floats, first: Number, out: Floats) -> None:
    """Normalize the hidden states from token `first` on."""
    for row in range(len(out)):
        normalize(plan.hidden[first + row], norm, plan.epsilon, out[row])


@compiled
def _share_of(plan: Plan, rows: Number) -> Number:
    """How many rows of a matrix are taken at a time."""
    share = rows // (len(plan.normed) * _PARTS)
    return max(share - share % _ROWS_AT_ONCE, _ROWS_AT_ONCE)


@compiled
def _project(
    kind: Number, plan: Plan, me: Number, phase: Number, address: Longs, x: Floats, out: Floats
) -> None:
    """This thread's share of `out` = `x` times a matrix, transposed."""
    rows = out.shape[1]
    share = _share_of(plan, rows)
    round_rows(kind, x, plan.rounded, me)
    first, last = take(plan.counters, phase, share, rows)
    while first < last:
        multiply(kind, address, x, plan.rounded, me, out, first, last)
        first, last = take(plan.counters, phase, share, rows)


@compiled
def _project_and_activate(plan: Plan, me: Number, phase: Number, address: Longs, x: Floats) -> None:
    """This thread's share of `dense_h_to_4h` and GELU."""
    kind, rows, out = plan.matrix, plan.wide.shape[1], plan.wide[: len(x)]
    share = _share_of(plan, rows)
    round_rows(kind, x, plan.rounded, me)
    first, last = take(plan.counters, phase, share, rows)
    while first < last:
        multiply(kind, address, x, plan.rounded, me, out, first, last)
        for row in range(len(x)):
            gelu(out[row, first:last], plan.tanh)
        first, last = take(plan.counters, phase, share, rows)


@compiled
def _project_and_add(
    plan: Plan, me: Number, phase: Number, address: Longs, bias: Number, x: Floats
) -> None:
    """This thread's share of a product, and a bias if its address is not 0, onto `hidden`."""
    kind, rows, out = plan.matrix, plan.hidden.shape[1], plan.update[: len(x)]
    share = _share_of(plan, rows)
    round_rows(kind, x, plan.rounded, me)
    first, last = take(plan.counters, phase, share, rows)
    while first < last:
        multiply(kind, address, x, plan.rounded, me, out, first, last)
        for row in range(len(x)):
            add_rows(plan.hidden[row, first:last], out[row, first:last])
            if bias != 0:
                add_rows(
                    plan.hidden[row, first:last],
                    matrix_at(bias, 1, rows, plan.hidden)[0, first:last],
                )
        first, last = take(plan.counters, phase, share, rows)


@compiled
def _attend(plan: Plan, me: Number, phase: Number, layer: Number) -> None:
    """This thread's share of the heads."""
    heads, head_dim = plan.keys.shape[2], plan.keys.shape[4]
    head, last = take(plan.counters, phase, 1, heads)
    while head < last:
        for row in range(plan.job[COUNT]):
            slot, position = plan.tokens[SLOT, row], plan.tokens[POSITION, row]
            at = head * 3 * head_dim
            packed = plan.packed[row, at : at + 3 * head_dim]
            query, key = packed[:head_dim], packed[head_dim : 2 * head_dim]
            rotate(query, plan.cos[position], plan.sin[position])
            rotate(key, plan.cos[position], plan.sin[position])
            store(key, plan.keys[layer, slot, head, position])
            store(packed[2 * head_dim :], plan.values[layer, slot, head, position])
            attend(
                query,
                plan.keys[layer, slot, head],
                plan.values[layer, slot, head],
                position + 1,
                plan.scores[me],
                plan.mixed[row, head * head_dim : (head + 1) * head_dim],
            )
        head, last = take(plan.counters, phase, 1, heads)


@compiled
def _step(plan: Plan, me: Number, step: Number) -> None:
    """One thread's part of a step, the `step`-th since the counters were 0."""
    threads, count, channels = len(plan.normed), plan.job[COUNT], plan.hidden.shape[1]
    counters = plan.counters
    # Every step has the same number of meetings, so the step says how many there were before it.
    meeting = step * (2 + len(plan.layers) * _PHASES)
    normed = plan.normed[me, :count]
    packed, mixed, wide = plan.packed[:count], plan.mixed[:count], plan.wide[:count]
    for row in range(me, count, threads):
        embed(plan.table, plan.ends[0], plan.tokens[ID, row], plan.hidden[row])
    meeting = meet(counters, meeting, threads)

    for layer in range(len(plan.layers)):
        fields, phase = plan.layers[layer], _FIRST_PHASE + layer * _PHASES
        _normalize(plan, matrix_at(fields[NORM_1], 2, channels, plan.hidden), 0, normed)
        _project(plan.matrix, plan, me, phase, fields[QKV:], normed, packed)
        meeting = meet(counters, meeting, threads)
        _attend(plan, me, phase + 1, layer)
        meeting = meet(counters, meeting, threads)
        _project_and_add(plan, me, phase + 2, fields[DENSE:], fields[DENSE_BIAS], mixed)
        meeting = meet(counters, meeting, threads)
        _normalize(plan, matrix_at(fields[NORM_2], 2, channels, plan.hidden), 0, normed)
        _project_and_activate(plan, me, phase + 3, fields[WIDEN:], normed)
        meeting = meet(counters, meeting, threads)
        _project_and_add(plan, me, phase + 4, fields[NARROW:], 0, wide)
        meeting = meet(counters, meeting, threads)

    first = plan.job[UNSCORED]
    if first < count:
        phase = _FIRST_PHASE + len(plan.layers) * _PHASES
        _normalize(plan, plan.final_norm, first, normed[: count - first])
        logits = plan.logits[first:count]
        _project(plan.table, plan, me, phase, plan.ends[1], normed[: count - first], logits)
    meet(counters, meeting, threads)


@entry
def begin(counters: Longs) -> None:
    """Tell the other threads that there is a step to do. All must have ended the one before."""
    for index in range(_FIRST_PHASE * STRIDE, len(counters)):
        counters[index] = 0
    add(counters, GO, 1)


@entry
def serve(plan: Plan, me: Number, steps: Number, most: Number, patience: Number) -> Number:
    """One thread's part of the next steps.

    Args:
        plan: The network.
        me: Which thread this is, from 0.
        steps: How many steps there were before.
        most: Return after so many steps.
        patience: Return after so many looks in vain whether a step has begun; -1 looks for ever.

    Returns:
        How many steps there have been now.
    """
    end = steps + most
    while steps < end and wait_for(plan.counters, GO, steps + 1, patience):
        _step(plan, me, steps)
        steps += 1
    return steps
