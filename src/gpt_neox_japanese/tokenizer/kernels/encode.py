"""The encoder, compiled: UTF-8 in, ids and source offsets out, every rule a look-up in `tables`.

A text is taken in blocks that end after a line break, because no token, emoji or tag reaches over
one. In each block

    1. `read` decodes characters and looks up their symbols,
    2. `replace_emoji` puts one symbol in the place of each emoji, if there is any,
    3. `replace_spans` does so for what cleaning found, if that is asked for,
    4. `find_matches` follows the trie from every place,
    5. `segment` goes from token to token and writes ids.

No number is wider than 64 bits signed, so all functions do the same with the JIT switched off.
"""

from __future__ import annotations

import numpy as np

from gpt_neox_japanese.kernels.compile import Bytes, Ints, Longs, Number, compiled, entry
from gpt_neox_japanese.tokenizer.kernels.segment import find_matches, segment
from gpt_neox_japanese.tokenizer.kernels.symbols import (
    BLOCK,
    PADDING,
    end_of_block,
    plain,
    read,
    replace_emoji,
    replace_spans,
)

__all__ = ["decode", "encode", "encode_many", "encode_with_spans", "plain"]


@compiled
def _encode_texts(
    data: Bytes,
    lengths: Longs,
    tables: Ints,
    allow_tags: bool,
    draws: tuple[Number, Number],
    spans: Ints,
    ids: Ints,
    offsets: Ints,
    bounds: Longs,
) -> Number:
    """Encode texts that lie in `data` one after the other.

    Args:
        data: uint8, UTF-8.
        lengths: int64, characters a text.
        tables: See `tables`.
        allow_tags: Whether tags may be spelled out.
        draws: The probability of dropping the best match, times 2**32, and what the random numbers
            for that begin from.
        spans: See `replace_spans`; for one text only.
        ids: int32 of the size of `data`: no byte becomes more than one id.
        offsets: int32 [size of data, 2], or [0, 2] if they are not wanted.
        bounds: int64 [texts + 1]; `bounds[i + 1]` becomes the number of ids up to text i.

    Returns:
        The number of ids, or -1 - p if the bytes at p are not UTF-8.
    """
    dropout_threshold, rng_state = draws
    capacity = min(data.size, 2 * BLOCK) + PADDING
    symbols = np.empty(capacity, dtype=np.int32)
    starts, hits = np.empty(capacity, dtype=np.int32), np.empty(capacity, dtype=np.int32)
    pending = np.empty((capacity, 2), dtype=np.int32)
    position = block_end = done = np.int64(0)
    first_span = symbols_done = np.int64(0)
    for text in range(len(lengths)):
        base = np.int64(0)
        while base < lengths[text] and position < data.size:
            if position >= block_end:
                block_end = end_of_block(data, position)
                if block_end - position + PADDING > symbols.size:
                    capacity = block_end - position + PADDING
                    symbols = np.empty(capacity, dtype=np.int32)
                    starts = np.empty(capacity, dtype=np.int32)
                    hits = np.empty(capacity, dtype=np.int32)
                    pending = np.empty((capacity, 2), dtype=np.int32)
            most = lengths[text] - base
            position, length, count, found = read(
                data, position, block_end, most, tables, symbols, starts, hits
            )
            if position < 0:
                return position
            if found > 0:
                count = replace_emoji(symbols, starts, count, hits[:found], tables)
            if len(spans) > 0:
                symbols_before = symbols_done
                symbols_done += count
                count, first_span = replace_spans(
                    symbols, starts, count, spans, first_span, symbols_before
                )
            matches = hits  # of which nothing is needed any more
            find_matches(symbols, count, tables, matches, pending)
            done, rng_state = segment(
                symbols,
                starts,
                matches,
                count,
                tables,
                allow_tags,
                dropout_threshold,
                rng_state,
                ids,
                offsets,
                done,
                base,
            )
            base += length
        bounds[text + 1] = done
    return done


@entry
def encode(
    data: Bytes,
    tables: Ints,
    allow_tags: bool,
    dropout_threshold: Number,
    rng_state: Number,
    ids: Ints,
) -> Number:
    """Encode one text; see `_encode_texts`."""
    nothing = np.empty((0, 3), dtype=np.int32)
    bounds = np.full(2, data.size)
    draws = dropout_threshold, rng_state
    return _encode_texts(data, bounds[1:], tables, allow_tags, draws, nothing, ids, nothing, bounds)


@entry
def encode_with_spans(
    data: Bytes,
    tables: Ints,
    allow_tags: bool,
    dropout_threshold: Number,
    rng_state: Number,
    spans: Ints,
    ids: Ints,
    offsets: Ints,
) -> Number:
    """Encode one text, cleaned, or with offsets, or both; see `_encode_texts`."""
    bounds = np.full(2, data.size)
    draws = dropout_threshold, rng_state
    return _encode_texts(data, bounds[1:], tables, allow_tags, draws, spans, ids, offsets, bounds)


@entry
def encode_many(
    data: Bytes, lengths: Longs, tables: Ints, allow_tags: bool, ids: Ints, bounds: Longs
) -> Number:
    """Encode several texts; see `_encode_texts`."""
    nothing = np.empty((0, 3), dtype=np.int32)
    draws = np.int64(0), np.int64(1)
    return _encode_texts(data, lengths, tables, allow_tags, draws, nothing, ids, nothing, bounds)


@entry
def decode(ids: Ints, begins: Longs, token_bytes: Bytes, text: Bytes) -> None:
    """Write the bytes of all ids, one after the other.

    Args:
        ids: int32 [tokens].
        begins: int64 [vocabulary + 1]: where the bytes of each id begin in `token_bytes`.
        token_bytes: uint8 [bytes of all tokens].
        text: uint8 [bytes], of exactly the size needed.
    """
    done = 0
    for token_id in ids:
        for place in range(begins[token_id], begins[token_id + 1]):
            text[done] = token_bytes[place]
            done += 1
