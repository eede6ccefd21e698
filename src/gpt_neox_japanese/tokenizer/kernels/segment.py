"""From symbols to ids, compiled: `reference` does the same in plain Python."""

from __future__ import annotations

import numpy as np

from gpt_neox_japanese.kernels.compile import Ints, Number, leaf
from gpt_neox_japanese.tokenizer.kernels.symbols import OTHER, child, follow, trie_of
from gpt_neox_japanese.tokenizer.kernels.tables import (
    BYTES,
    CODE_POINT,
    LESS_THAN,
    NODE_FIELDS,
    OWN,
    SYMBOL_FIELDS,
    SYMBOLS,
    TAG_ROOT,
    VALUE,
)
from gpt_neox_japanese.tokenizer.python_encoder import LONGEST_PIECE

__all__ = ["find_pieces", "segment"]


@leaf
def _next_draw(state: Number) -> Number:
    """`reference.draws`, one number at a time."""
    state ^= (state << 13) & 0xFFFFFFFF
    state ^= state >> 17
    return state ^ (state << 5) & 0xFFFFFFFF


@leaf
def _another_piece(
    symbols: Ints, place: Number, answer: Number, leave: Number, state: Number, tables: Ints
) -> tuple[Number, Number]:
    """Leave the best piece for another with probability `leave` / 2**32; return piece and state."""
    trie = trie_of(tables)
    own = tables[tables[OWN] :]
    best_length = answer >> 1 & 3
    shorter = longer = np.int64(-1)  # the others
    node = np.int64(symbols[place])
    for length in range(1, LONGEST_PIECE + 1):
        token_id = np.int64(own[node])
        if token_id >= 0 and length != best_length:
            shorter, longer = longer, token_id << 3 | length << 1
        node = child(trie, node, np.int64(symbols[place + length]))
        if node == 0:
            break
    if longer < 0:
        return answer, state
    state = _next_draw(state)
    if state >= leave:
        return answer, state
    if shorter < 0:
        return longer, state
    # The better of the two is the one with the smaller id, and of two with one id the longer.
    better, worse = longer, shorter
    if shorter >> 3 < longer >> 3:
        better, worse = shorter, longer
    state = _next_draw(state)
    return (better if state & 1 else worse), state


@leaf
def _tag(symbols: Ints, place: Number, tables: Ints) -> tuple[Number, Number]:
    """The longest tag spelled out from the `<` at `place` on: its id and end, or -1."""
    trie = trie_of(tables)
    own = tables[tables[OWN] :]
    token_id, tag_end = np.int64(-1), place
    node, end = np.int64(tables[TAG_ROOT]), place
    while node > 0:
        end += 1
        if own[node] >= 0:
            token_id, tag_end = np.int64(own[node]), end
        node = child(trie, node, np.int64(symbols[end]))
    return token_id, tag_end


@leaf
def _write_bytes(code: Number, tables: Ints, ids: Ints, done: Number) -> Number:
    """Write the ids of a character's UTF-8 bytes, and return the number of ids written so far."""
    byte_ids = tables[tables[BYTES] :]
    if code < 0x80:
        ids[done] = byte_ids[code]
        return done + 1
    length = 2 if code < 0x800 else 3 if code < 0x10000 else 4
    lead = (0xF00 >> length) & 0xFF  # as many ones as there are bytes
    ids[done] = byte_ids[lead | code >> 6 * (length - 1)]
    for index in range(1, length):
        ids[done + index] = byte_ids[0x80 | (code >> 6 * (length - 1 - index)) & 0x3F]
    return done + length


@leaf
def find_pieces(symbols: Ints, count: Number, tables: Ints, answers: Ints, todo: Ints) -> None:
    """Find the best token at every place of a block, whether or not a token will begin there.

    What begins where is a chain in which each link waits for the one before. These look-ups wait
    for nothing, so the processor does many at a time, and the chain has only `answers` to read.
    Whether a pair or a longer piece is there is anyone's guess. So it decides about no jump: the
    places where a third symbol may follow are noted down, and looked at afterwards.

    Args:
        symbols: int32, of the block.
        count: How many there are.
        tables: See `tables`.
        answers: int32; becomes id << 3 | length << 1, or 0 for characters to be written as bytes.
            The last bit means nothing.
        todo: int32 `(count + 1, 2)`, for notes.
    """
    trie = trie_of(tables)
    nodes = trie[0]
    noted = 0
    for place in range(count):
        symbol = np.int64(symbols[place])
        answer = np.int64(0)
        if symbol < 0:
            answer = (-symbol - 1) << 3 | 1 << 1
        elif symbol < OTHER:
            answer = np.int64(nodes[symbol * NODE_FIELDS + VALUE])
            node, is_there = follow(trie, symbol, np.int64(symbols[place + 1]))
            longer = np.int64(nodes[node * NODE_FIELDS + VALUE])
            answer += (longer - answer) * is_there
            todo[noted, 0], todo[noted, 1] = place, node
            noted += is_there & longer
        answers[place] = answer
    for index in range(noted):
        at, node = np.int64(todo[index, 0]), np.int64(todo[index, 1])
        node, is_there = follow(trie, node, np.int64(symbols[at + 2]))
        longer, answer = np.int64(nodes[node * NODE_FIELDS + VALUE]), np.int64(answers[at])
        answers[at] = answer + (longer - answer) * is_there


@leaf
def segment(
    symbols: Ints,
    starts: Ints,
    answers: Ints,
    count: Number,
    tables: Ints,
    allow_tags: bool,
    leave: Number,
    state: Number,
    ids: Ints,
    offsets: Ints,
    done: Number,
    base: Number,
) -> tuple[Number, Number]:
    """Write the ids of a block, and offsets if there is room for them.

    Args:
        symbols: int32, of the block.
        starts: int32, character at which each begins, counted in the block.
        answers: See `find_pieces`.
        count: How many there are of each.
        tables: See `tables`.
        allow_tags: Whether tags may be spelled out.
        leave: Probability of leaving the best piece, times 2**32.
        state: Of the random numbers.
        ids: int32, room for all.
        offsets: int32 `(tokens, 2)`, room for all, or `(0, 2)`.
        done: Ids written before.
        base: Characters of the text before this block.

    Returns:
        The number of ids written so far, and the new state.
    """
    less_than = tables[LESS_THAN] if allow_tags else OTHER
    place = np.int64(0)
    while place < count:
        symbol, answer = np.int64(symbols[place]), np.int64(answers[place])
        token_id, end = np.int64(-1), place
        if symbol == less_than:
            token_id, end = _tag(symbols, place, tables)
        if token_id < 0:
            if leave > 0 and 0 < symbol < OTHER:
                answer, state = _another_piece(symbols, place, answer, leave, state, tables)
            token_id, end = answer >> 3, place + (answer >> 1 & 3)
        before = done
        if end > place:
            ids[done] = token_id
            done += 1
        else:
            done = _write_bytes(_code_point(symbol, tables), tables, ids, done)
            end += 1
        if len(offsets) > 0:
            for index in range(before, done):
                offsets[index, 0] = base + starts[place]
                offsets[index, 1] = base + starts[end]
        place = end
    return done, state


@leaf
def _code_point(symbol: Number, tables: Ints) -> Number:
    if symbol >= OTHER:
        return symbol - OTHER
    return np.int64(tables[tables[SYMBOLS] + symbol * SYMBOL_FIELDS + CODE_POINT])
