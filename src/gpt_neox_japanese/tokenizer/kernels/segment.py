"""From symbols to ids, compiled: `python_encoder` does the same in plain Python."""

from __future__ import annotations

import numpy as np

from gpt_neox_japanese.kernels.compile import Ints, Number, leaf
from gpt_neox_japanese.tokenizer.encoding.python_encoder import LONGEST_PIECE
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

__all__ = ["find_matches", "segment"]


@leaf
def _xorshift32(rng_state: Number) -> Number:
    """`python_encoder.xorshift32`, one number at a time."""
    rng_state ^= (rng_state << 13) & 0xFFFFFFFF
    rng_state ^= rng_state >> 17
    return rng_state ^ (rng_state << 5) & 0xFFFFFFFF


@leaf
def _drop_best_match(
    symbols: Ints,
    place: Number,
    match: Number,
    dropout_threshold: Number,
    rng_state: Number,
    tables: Ints,
) -> tuple[Number, Number]:
    """Drop the best match for another one with probability `dropout_threshold` / 2**32.

    Args:
        symbols: int32 [symbols], of the block.
        place: Where the token begins.
        match: The best one; see `find_matches`.
        dropout_threshold: See `segment`.
        rng_state: See `segment`.
        tables: See `tables`.

    Returns:
        The match that is taken, and the new state of the random numbers.
    """
    trie = trie_of(tables)
    own = tables[tables[OWN] :]
    best_length = match >> 1 & 3
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
        return match, rng_state
    rng_state = _xorshift32(rng_state)
    if rng_state >= dropout_threshold:
        return match, rng_state
    if shorter < 0:
        return longer, rng_state
    # The better of the two is the one with the smaller id, and of two with one id the longer.
    better, worse = longer, shorter
    if shorter >> 3 < longer >> 3:
        better, worse = shorter, longer
    rng_state = _xorshift32(rng_state)
    return (better if rng_state & 1 else worse), rng_state


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
def find_matches(symbols: Ints, count: Number, tables: Ints, matches: Ints, pending: Ints) -> None:
    """Find the best token at every place of a block, whether or not a token will begin there.

    What begins where is a chain in which each link waits for the one before. These look-ups wait
    for nothing, so the processor does many at a time, and the chain has only `matches` to read.
    Whether a pair or a longer piece is there is anyone's guess. So it decides about no jump: the
    places where a third symbol may follow are noted down, and looked at afterwards.

    Args:
        symbols: int32 [count + 2 or more], of the block.
        count: How many there are.
        tables: See `tables`.
        matches: int32 [count or more]; becomes id << 3 | length << 1, or 0 for characters to be
            written as bytes. The last bit means nothing.
        pending: int32 [count + 1, 2], for notes.
    """
    trie = trie_of(tables)
    nodes = trie[0]
    noted = 0
    for place in range(count):
        symbol = np.int64(symbols[place])
        match = np.int64(0)
        if symbol < 0:
            match = (-symbol - 1) << 3 | 1 << 1
        elif symbol < OTHER:
            match = np.int64(nodes[symbol * NODE_FIELDS + VALUE])
            node, is_there = follow(trie, symbol, np.int64(symbols[place + 1]))
            longer = np.int64(nodes[node * NODE_FIELDS + VALUE])
            match += (longer - match) * is_there
            pending[noted, 0], pending[noted, 1] = place, node
            noted += is_there & longer
        matches[place] = match
    for index in range(noted):
        at, node = np.int64(pending[index, 0]), np.int64(pending[index, 1])
        node, is_there = follow(trie, node, np.int64(symbols[at + 2]))
        longer, match = np.int64(nodes[node * NODE_FIELDS + VALUE]), np.int64(matches[at])
        matches[at] = match + (longer - match) * is_there


@leaf
def segment(
    symbols: Ints,
    starts: Ints,
    matches: Ints,
    count: Number,
    tables: Ints,
    allow_tags: bool,
    dropout_threshold: Number,
    rng_state: Number,
    ids: Ints,
    offsets: Ints,
    done: Number,
    base: Number,
) -> tuple[Number, Number]:
    """Write the ids of a block, and offsets if there is room for them.

    Args:
        symbols: int32 [count + 2 or more], of the block.
        starts: int32 [count + 1 or more], character at which each begins, counted in the block.
        matches: See `find_matches`.
        count: How many there are of each.
        tables: See `tables`.
        allow_tags: Whether tags may be spelled out.
        dropout_threshold: Probability of dropping the best match, times 2**32.
        rng_state: State of the random numbers.
        ids: int32 [tokens], room for all.
        offsets: int32 [tokens, 2], room for all, or [0, 2].
        done: Ids written before.
        base: Characters of the text before this block.

    Returns:
        The number of ids written so far, and the new state of the random numbers.
    """
    less_than = tables[LESS_THAN] if allow_tags else OTHER
    place = np.int64(0)
    while place < count:
        symbol, match = np.int64(symbols[place]), np.int64(matches[place])
        token_id, end = np.int64(-1), place
        if symbol == less_than:
            token_id, end = _tag(symbols, place, tables)
        if token_id < 0:
            if dropout_threshold > 0 and 0 < symbol < OTHER:
                match, rng_state = _drop_best_match(
                    symbols, place, match, dropout_threshold, rng_state, tables
                )
            token_id, end = match >> 3, place + (match >> 1 & 3)
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
    return done, rng_state


@leaf
def _code_point(symbol: Number, tables: Ints) -> Number:
    if symbol >= OTHER:
        return symbol - OTHER
    return np.int64(tables[tables[SYMBOLS] + symbol * SYMBOL_FIELDS + CODE_POINT])
