"""One step of the network for some tokens at once, as one compiled function.

Every thread of the pool runs `run_steps` at the same time. Within a phase they take work items as
they come free, and the next phase begins when all rows are computed (`kernel_phases`). A layer has
five phases:

    1. `query_key_value`
    2. what each head takes from the cache, after its new keys and values have been stored there
    3. `dense`, added to the hidden state
    4. `dense_h_to_4h`
    5. GELU and `dense_4h_to_h`, added to the hidden state

Layer norms, and what prepares activations for products, are done by every thread for
itself: that takes less time than one more phase. A thread that comes late may read for them what a
later phase is just writing; then there is no work left to take, and what it has read is forgotten.

A token is given by its id, the slot of the cache that it belongs to, and its position there. Tokens
of one slot may stand beside each other, the earlier first. What is computed for a token is the
same to the last bit whatever tokens there are beside it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gpt_neox_japanese.inference.cpu.kernel_dispatch import (
    PreparedActivations,
    embed,
    multiply,
    prepare_activations,
)
from gpt_neox_japanese.inference.cpu.kernel_phases import (
    GO,
    add,
    close_phase,
    complete_phase,
    load,
    next_work_item,
    open_phase,
    phase_counters,
    spin_until,
)
from gpt_neox_japanese.kernels.bfloat16 import matrix_at
from gpt_neox_japanese.kernels.compile import (
    Floats,
    Longs,
    Number,
    entry,
    leaf,
)
from gpt_neox_japanese.kernels.ops import add_rows, attend, gelu, normalize, rotate, store
from gpt_neox_japanese.kernels.references import by_reference

__all__ = ["FIELDS", "Workspace", "begin_step", "counter_words", "run_steps"]

# A row of `Workspace.layers`: addresses of tensors. A matrix has two, its numbers and its scales.
INPUT_NORM, QKV, DENSE, DENSE_BIAS, POST_ATTENTION_NORM, UP_PROJ, DOWN_PROJ, FIELDS = (
    0,
    1,
    3,
    5,
    6,
    7,
    9,
    11,
)

# A row of `Workspace.tokens`.
ID, SLOT, POSITION = 0, 1, 2

# `Workspace.batch`: how many tokens there are, and how many at their beginning need no logits.
NUM_TOKENS, NUM_WITHOUT_LOGITS = 0, 1

_FIRST_OF_LAYERS = 1
_PHASES = 5  # of a layer
_ITEMS_PER_THREAD = 4  # in a phase, so that a slow thread can leave some
_ROWS_AT_ONCE = 8  # a work item has a multiple of so many rows

# What functions are passed is no integer of Python's: for each Numba would compile one of its own.
_EMBED = np.int64(0)  # the phase before the layers; the head's is the last
_NOTHING, _GELU, _ADD = np.int64(0), np.int64(1), np.int64(2)  # what is done with a product
_NO_BIAS = _FIRST_TOKEN = np.int64(0)
_ONE = np.int64(1)


class Workspace(NamedTuple):
    """All that a step reads and writes. It is made once, and every array keeps its place.

    Attributes:
        matrix: Empty; its dtype says how the layers' matrices are stored (`kernel_dispatch`).
        table: As `matrix`, for the embedding and the head.
        layers: int64 [layers, FIELDS].
        embed_and_head: int64 [2, 2]: numbers and scales of the embedding and of the head.
        final_norm: float32 [2, hidden].
        cos: float32 [positions, rotary_dim / 2].
        sin: As `cos`.
        epsilon: float32, of the layer norms.
        tanh: Whether GELU is the approximation with tanh.
        keys: [layers, slots, heads, capacity, head_dim], float32 or bfloat16 as uint16.
        values: As `keys`.
        counters: int64, see `counter_words`.
        batch: int64 [2].
        tokens: int64 [3, max_rows].
        hidden: float32 [max_rows, hidden].
        qkv: float32 [max_rows, 3 * hidden]: query, key and value of each head in turn.
        attn_out: float32 [max_rows, hidden].
        mlp_hidden: float32 [max_rows, intermediate_size].
        delta: float32 [max_rows, hidden].
        logits: float32 [max_rows, vocabulary], the result.
        normed: float32 [threads, max_rows, hidden].
        scores: float32 [threads, capacity].
        prepared: Room for activations as products need them.
    """

    matrix: Number
    table: Number
    layers: Longs
    embed_and_head: Longs
    final_norm: Floats
    cos: Floats
    sin: Floats
    epsilon: Number
    tanh: bool
    keys: Number
    values: Number
    counters: Longs
    batch: Longs
    tokens: Longs
    hidden: Floats
    qkv: Floats
    attn_out: Floats
    mlp_hidden: Floats
    delta: Floats
    logits: Floats
    normed: Floats
    scores: Floats
    prepared: PreparedActivations


def counter_words(layers: int) -> int:
    """How many int64 the counters of a network take.

    Args:
        layers: Of the network.
    """
    return phase_counters(_FIRST_OF_LAYERS + layers * _PHASES + 1)


@leaf
def _normalize(ws: Workspace, norm: Floats, first: Number, out: Floats) -> None:
    """Normalize the hidden states from token `first` on."""
    for row in range(len(out)):
        normalize(ws.hidden[first + row], norm, ws.epsilon, out[row])


@leaf
def _work_item_size(ws: Workspace, rows: Number) -> Number:
    """How many rows of a matrix are a work item."""
    item_size = rows // (len(ws.normed) * _ITEMS_PER_THREAD)
    return max(item_size - item_size % _ROWS_AT_ONCE, _ROWS_AT_ONCE)


@leaf
def _project(
    kind: Number,
    ws: Workspace,
    thread_id: Number,
    phase: Number,
    step: Number,
    address: Longs,
    x: Floats,
    out: Floats,
    then: Number,
    bias: Number,
) -> None:
    """This thread's share of `out` = `x` times a matrix, transposed, and what is done with it.

    `then` is nothing, GELU, or adding it to the hidden states, and a bias if its address is not 0.
    """
    columns, computed = out.shape[1], 0
    item_size = _work_item_size(ws, columns)
    prepare_activations(kind, x, ws.prepared, thread_id)
    first, last = next_work_item(ws.counters, phase, step, item_size, columns)
    while first < last:
        multiply(kind, address, x, ws.prepared, thread_id, out, first, last)
        for row in range(len(x)):
            if then == _GELU:
                gelu(out[row, first:last], ws.tanh)
            elif then == _ADD:
                add_rows(ws.hidden[row, first:last], out[row, first:last])
                if bias != _NO_BIAS:
                    bias_row = matrix_at(bias, 1, columns, ws.hidden)[0]
                    add_rows(ws.hidden[row, first:last], bias_row[first:last])
        computed += last - first
        first, last = next_work_item(ws.counters, phase, step, item_size, columns)
    complete_phase(ws.counters, phase, step, computed, columns)


@leaf
def _attend(ws: Workspace, thread_id: Number, phase: Number, step: Number, layer: Number) -> None:
    """This thread's share of the heads."""
    heads, head_dim, computed = ws.keys.shape[2], ws.keys.shape[4], 0
    head, last = next_work_item(ws.counters, phase, step, _ONE, heads)
    while head < last:
        for row in range(ws.batch[NUM_TOKENS]):
            slot, position = ws.tokens[SLOT, row], ws.tokens[POSITION, row]
            at = head * 3 * head_dim
            qkv = ws.qkv[row, at : at + 3 * head_dim]
            query, key = qkv[:head_dim], qkv[head_dim : 2 * head_dim]
            rotate(query, ws.cos[position], ws.sin[position])
            rotate(key, ws.cos[position], ws.sin[position])
            store(key, ws.keys[layer, slot, head, position])
            store(qkv[2 * head_dim :], ws.values[layer, slot, head, position])
            attend(
                query,
                ws.keys[layer, slot, head],
                ws.values[layer, slot, head],
                position + 1,
                ws.scores[thread_id],
                ws.attn_out[row, head * head_dim : (head + 1) * head_dim],
            )
        computed += 1
        head, last = next_work_item(ws.counters, phase, step, _ONE, heads)
    complete_phase(ws.counters, phase, step, computed, heads)


@leaf
def _embed(ws: Workspace, thread_id: Number, step: Number) -> None:
    """This thread's share of the tokens' embeddings."""
    threads, computed = len(ws.normed), 0
    part, last = next_work_item(ws.counters, _EMBED, step, _ONE, threads)
    while part < last:
        for row in range(part, ws.batch[NUM_TOKENS], threads):
            embed(ws.table, ws.embed_and_head[0], ws.tokens[ID, row], ws.hidden[row])
        computed += 1
        part, last = next_work_item(ws.counters, _EMBED, step, _ONE, threads)
    complete_phase(ws.counters, _EMBED, step, computed, threads)


@leaf
def _run_step(ws: Workspace, thread_id: Number, step: Number) -> None:
    """One thread's part of a step, the `step`-th since the counters were 0.

    A late thread may read the batch of a later step here. It then takes nothing: all phases of its
    own are complete, whatever their number of tokens was.
    """
    count, channels = ws.batch[NUM_TOKENS], ws.hidden.shape[1]
    normed = ws.normed[thread_id, :count]
    qkv, attn_out, mlp_hidden = ws.qkv[:count], ws.attn_out[:count], ws.mlp_hidden[:count]
    delta, kind = ws.delta[:count], ws.matrix
    _embed(ws, thread_id, step)

    for layer in range(len(ws.layers)):
        fields, phase = ws.layers[layer], _FIRST_OF_LAYERS + layer * _PHASES
        _normalize(ws, matrix_at(fields[INPUT_NORM], 2, channels, ws.hidden), _FIRST_TOKEN, normed)
        matrix = fields[QKV:]
        _project(kind, ws, thread_id, phase, step, matrix, normed, qkv, _NOTHING, _NO_BIAS)
        _attend(ws, thread_id, phase + 1, step, layer)
        matrix, bias = fields[DENSE:], fields[DENSE_BIAS]
        _project(kind, ws, thread_id, phase + 2, step, matrix, attn_out, delta, _ADD, bias)
        norm = matrix_at(fields[POST_ATTENTION_NORM], 2, channels, ws.hidden)
        _normalize(ws, norm, _FIRST_TOKEN, normed)
        matrix, phase = fields[UP_PROJ:], phase + 3
        _project(kind, ws, thread_id, phase, step, matrix, normed, mlp_hidden, _GELU, _NO_BIAS)
        matrix, phase = fields[DOWN_PROJ:], phase + 1
        _project(kind, ws, thread_id, phase, step, matrix, mlp_hidden, delta, _ADD, _NO_BIAS)

    first = ws.batch[NUM_WITHOUT_LOGITS]
    if first < count:
        phase = _FIRST_OF_LAYERS + len(ws.layers) * _PHASES
        normed, logits = normed[: count - first], ws.logits[first:count]
        _normalize(ws, ws.final_norm, first, normed)
        table, matrix = ws.table, ws.embed_and_head[1]
        _project(table, ws, thread_id, phase, step, matrix, normed, logits, _NOTHING, _NO_BIAS)


@entry
def begin_step(counters: Longs, batch: Longs, layers: Number) -> None:
    """Tell the other threads that there is a step to do. The one before must be complete.

    Args:
        counters: int64 [counter_words(layers)], of the workspace.
        batch: Of the workspace, that of the new step.
        layers: How many there are.
    """
    step, head = counters[GO], _FIRST_OF_LAYERS + layers * _PHASES
    for phase in range(head):
        open_phase(counters, phase, step)
    if batch[NUM_WITHOUT_LOGITS] < batch[NUM_TOKENS]:
        open_phase(counters, head, step)
    else:
        close_phase(counters, head, step)
    add(counters, GO, 1)


@entry
def run_steps(
    ws: Workspace, thread_id: Number, steps: Number, max_steps: Number, max_spins: Number
) -> Number:
    """One thread's part of the next steps.

    Args:
        ws: The workspace of the network.
        thread_id: Which thread this is, from 0.
        steps: How many steps there were before.
        max_steps: Return after so many steps.
        max_spins: Return after so many spins in vain whether a step has begun; -1 spins for ever.

    Returns:
        How many steps there have been now.
    """
    end, shared = steps + max_steps, by_reference(ws)
    while steps < end and spin_until(ws.counters, GO, steps + 1, max_spins):
        steps = load(ws.counters, GO)  # there may have been more of them meanwhile
        _run_step(shared, thread_id, steps - 1)
    return steps
