"""From symbols to ids, compiled: `reference` does the same in plain Python."""

from __future__ import annotations

import numpy as np

from gpt_neox_japanese.tokenizer.kernel_compile import Ints, Number, leaf
from gpt_neox_japanese.tokenizer.kernel_symbols import OTHER, child, place_of, trie_of
from gpt_neox_japanese.tokenizer.reference import LONGEST_PIECE
from gpt_neox_japanese.tokenizer.tables import (
    BYTES,
    CLASS,
    CODE_POINT,
    LESS_THAN,
    OWN,
    ROWS,
    SYMBOL_FIELDS,
    SYMBOLS,
    TAG_ROOT,
)
from gpt_neox_japanese.tokenizer.trie import FIELDS, VALUE

__all__ = ["segment"]


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
    own, rows = tables[tables[OWN] :], tables[tables[ROWS] :]
    best_length = answer >> 1 & 3
    shorter = longer = np.int64(-1)  # the others
    node = np.int64(symbols[place])
    for length in range(1, LONGEST_PIECE + 1):
        token_id = np.int64(own[node])
        if token_id >= 0 and length != best_length:
            shorter, longer = longer, token_id << 3 | length << 1
        if rows[node] == 0:
            break
        node = child(trie, np.int64(rows[node]), np.int64(symbols[place + length]))
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
    own, rows = tables[tables[OWN] :], tables[tables[ROWS] :]
    token_id, tag_end = np.int64(-1), place
    row = np.int64(tables[TAG_ROOT])
    end = place + 1
    while row > 0:
        node = child(trie, row, np.int64(symbols[end]))
        if node == 0:
            break
        end += 1
        row = np.int64(rows[node])
        if own[node] >= 0:
            token_id, tag_end = np.int64(own[node]), end
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
def segment(
    symbols: Ints,
    starts: Ints,
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
        count: How many there are.
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
    trie = trie_of(tables)
    nodes, rows = trie[0], tables[tables[ROWS] :]
    less_than = tables[LESS_THAN] if allow_tags else -1
    place = np.int64(0)
    while place < count:
        symbol = np.int64(symbols[place])
        end = place + 1
        before = done
        token_id = np.int64(-1)
        if symbol < 0:
            token_id = -symbol - 1
        elif symbol >= OTHER:
            done = _write_bytes(symbol - OTHER, tables, ids, done)
        else:
            if symbol == less_than:
                token_id, end = _tag(symbols, place, tables)
            if token_id < 0:
                answer = np.int64(nodes[symbol * FIELDS + VALUE])
                # Whether a pair is there is anyone's guess, so it must not decide about a jump.
                node, is_there = place_of(trie, symbol, np.int64(symbols[place + 1]))
                longer = np.int64(nodes[node * FIELDS + VALUE])
                answer = longer if is_there else answer
                if is_there & longer:
                    row = np.int64(rows[node])
                    node, is_there = place_of(trie, row, np.int64(symbols[place + 2]))
                    longer = np.int64(nodes[node * FIELDS + VALUE])
                    answer = longer if is_there else answer
                if leave > 0:
                    answer, state = _another_piece(symbols, place, answer, leave, state, tables)
                length = answer >> 1 & 3
                if length > 0:
                    token_id = answer >> 3
                    end = place + length
                else:
                    record = tables[SYMBOLS] + symbol * SYMBOL_FIELDS
                    token_id = np.int64(tables[record + CLASS])
                    end = place + 1
                    if token_id < 0:
                        code = np.int64(tables[record + CODE_POINT])
                        done = _write_bytes(code, tables, ids, done)
        if token_id >= 0:
            ids[done] = token_id
            done += 1
        if len(offsets) > 0:
            for index in range(before, done):
                offsets[index, 0] = base + starts[place]
                offsets[index, 1] = base + starts[end]
        place = end
    return done, state
