"""From UTF-8 to symbols, compiled: `normalization` does the same in plain Python.

A symbol is a number of the alphabet (see `tables`); or `OTHER` + code point, for characters that
are in no key; or -(id + 1), for what has become the tag of that id. After the last symbol of a
block follow two zeros, which match nothing, so that nobody has to look where the block ends.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from gpt_neox_japanese.kernels.compile import (
    Bytes,
    Ints,
    Longs,
    Number,
    compiled,
    entry,
    leaf,
)
from gpt_neox_japanese.tokenizer.kernels.tables import (
    BASES,
    CODE_POINT,
    CODE_POINTS,
    EMOJI_ROOTS,
    EMOJI_STARTERS,
    HEADER,
    JOINS,
    KIND,
    KIND_JOINER,
    NODE_FIELDS,
    NODES,
    OWN,
    ROW,
    SYMBOL_FIELDS,
    SYMBOLS,
    VALUE,
    WIDTH,
)

__all__ = [
    "BLOCK",
    "OTHER",
    "PADDING",
    "child",
    "end_of_block",
    "follow",
    "plain",
    "read",
    "replace_emoji",
    "replace_spans",
    "trie_of",
]

OTHER = 1 << 24  # above every symbol of the alphabet
BLOCK = 12_288  # bytes; what a block needs then fits into the processor's second cache
PADDING = 2

FlatTrie: TypeAlias = tuple[Ints, Ints, Number]
"""What `trie_of` gives."""


@leaf
def _code_point(data: Bytes, position: Number) -> tuple[Number, Number]:
    """The character at `position` and its length in bytes; -1 where the bytes are not UTF-8."""
    first = np.int64(data[position])
    if first < 0x80:
        return first, 1
    left = data.size - position
    if 0xE0 <= first < 0xF0 and left > 2:
        second = np.int64(data[position + 1]) ^ 0x80
        third = np.int64(data[position + 2]) ^ 0x80
        code = (first & 0x0F) << 12 | second << 6 | third
        if second | third < 0x40 and code >= 0x800 and code >> 11 != 0xD800 >> 11:
            return code, 3
    elif 0xC2 <= first < 0xE0 and left > 1:
        second = np.int64(data[position + 1]) ^ 0x80
        if second < 0x40:
            return (first & 0x1F) << 6 | second, 2
    elif 0xF0 <= first < 0xF5 and left > 3:
        second = np.int64(data[position + 1]) ^ 0x80
        third = np.int64(data[position + 2]) ^ 0x80
        fourth = np.int64(data[position + 3]) ^ 0x80
        code = (first & 0x07) << 18 | second << 12 | third << 6 | fourth
        if second | third | fourth < 0x40 and 0x10000 <= code < CODE_POINTS:
            return code, 4
    return np.int64(-1), 1


@leaf
def _is_line_feed(data: Bytes, position: Number) -> Number:
    return position < data.size and data[position] == 0x0A


@leaf
def end_of_block(data: Bytes, position: Number) -> Number:
    """Where to stop reading: after the first line break from one block on.

    Args:
        data: uint8 [bytes], UTF-8.
        position: Where the block begins.

    Returns:
        The position after the last byte of the block; the end of the text if no line break follows.
    """
    end = position + BLOCK
    while end < data.size:
        if data[end] == 0x0A:
            return end + 1
        end += 1
    return data.size


@leaf
def read(
    data: Bytes,
    position: Number,
    end: Number,
    most: Number,
    tables: Ints,
    symbols: Ints,
    starts: Ints,
    hits: Ints,
) -> tuple[Number, Number, Number, Number]:
    """Read up to `most` characters from the bytes `position` to `end`.

    Args:
        data: uint8 [bytes], UTF-8.
        position: Where reading begins, in bytes.
        end: Where it ends, in bytes.
        most: How many characters to read at most.
        tables: int32 [numbers], of `build_tables`.
        symbols: int32 [bytes + 2 or more], written: the symbols, and zeros after the last one.
        starts: int32 [bytes + 1 or more], written: the character at which each symbol begins,
        and the end.
        hits: int32 [bytes or more], written: the symbols at which an emoji may begin.

    Returns:
        The position reached, or -1 - p if the bytes at p are not UTF-8; the number of characters
        read, of symbols written, and of `hits`, the symbols at which an emoji may begin.
    """
    characters = tables[HEADER : HEADER + CODE_POINTS]
    starters = tables[EMOJI_STARTERS]
    read = count = found = 0
    while position < end and read < most:
        code, length = _code_point(data, position)
        if code < 0:
            return -1 - position, read, count, found
        symbol = np.int64(characters[code])
        starts[count] = read
        if symbol <= starters:
            if symbol > 0:
                hits[found] = count
                found += 1
            elif symbol == 0:
                symbol = OTHER + code
            elif code == 0x0D and read + 1 < most and _is_line_feed(data, position + 1):
                length += 1  # CRLF is one break
                read += 1
        symbols[count] = symbol
        count += 1
        read += 1
        position += length
    terminate(symbols, starts, count, read)
    return position, read, count, found


@leaf
def terminate(symbols: Ints, starts: Ints, count: Number, end: Number) -> None:
    """Write zeros after the last symbol, and where the text ends.

    Args:
        symbols: int32 [count + 2 or more], written.
        starts: int32 [count + 1 or more], written: the character at which each symbol begins.
        count: How many symbols there are.
        end: The character after the last symbol.
    """
    for place in range(count, count + PADDING):
        symbols[place] = 0
    starts[count] = end


@leaf
def trie_of(tables: Ints) -> FlatTrie:
    """What following edges needs of the tables: nodes, bases, and the bits of a symbol.

    Args:
        tables: int32 [numbers], of `build_tables`.

    Returns:
        int32 nodes, int32 bases, and how many bits a symbol has.
    """
    return tables[tables[NODES] :], tables[tables[BASES] :], np.int64(tables[WIDTH])


@leaf
def follow(trie: FlatTrie, node: Number, symbol: Number) -> tuple[Number, Number]:
    """Follow the edge with a symbol from a node; see `trie`.

    Args:
        trie: Of `trie_of`.
        node: Where the edge begins.
        symbol: Of the alphabet, or any other, which no edge has.

    Returns:
        A node, and 1 if `symbol` leads to it, or 0 if there is no such edge.
    """
    nodes, bases, width = trie
    base = np.int64(bases[node])
    # What is none of the alphabet becomes 0, which no edge has.
    place = base + (symbol & -np.int64(symbol >> width == 0))
    return place, np.int64(nodes[place * NODE_FIELDS + ROW] == base)


@leaf
def child(trie: FlatTrie, node: Number, symbol: Number) -> Number:
    """The node that `symbol` leads to from a node, or 0.

    Args:
        trie: Of `trie_of`.
        node: Where the edge begins.
        symbol: Of the alphabet.
    """
    place, is_there = follow(trie, node, symbol)
    return place * is_there


@leaf
def _list_emoji(symbols: Ints, hits: Ints, tables: Ints, places: Ints, found: Longs) -> Number:
    """List every occurrence of every key, by its first symbol.

    Returns:
        How many there are. With empty arrays nothing is written, only counted.
    """
    trie = trie_of(tables)
    own = tables[tables[OWN] :]
    count = 0
    for hit in hits:
        node = np.int64(tables[EMOJI_ROOTS] + symbols[hit])
        end = hit
        while node > 0:
            end += 1
            if own[node] >= 0:
                if count < places.size:
                    places[count] = hit
                    found[count, 0] = node
                    found[count, 1] = end
                count += 1
            node = child(trie, node, np.int64(symbols[end]))
    return count


@compiled
def _stable_order_by_rank(found: Longs, own: Ints) -> Longs:
    """Indices that sort occurrences by the rank of their key, otherwise as they come (radix sort).

    Sorting byte by byte takes time linear in the occurrences, whatever they are.
    """
    count = len(found)
    order, ranks = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    highest = np.int64(0)
    for index in range(count):
        order[index] = index
        ranks[index] = own[found[index, 0]]
        highest = max(highest, ranks[index])
    while highest > 0:
        ends = np.zeros(257, dtype=np.int64)
        for rank in ranks:
            ends[(rank & 0xFF) + 1] += 1
        for byte in range(256):
            ends[byte + 1] += ends[byte]
        next_order, next_ranks = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        for index in range(count):
            place = ends[ranks[index] & 0xFF]
            ends[ranks[index] & 0xFF] += 1
            next_order[place], next_ranks[place] = order[index], ranks[index] >> 8
        order, ranks = next_order, next_ranks
        highest >>= 8
    return order


@compiled
def replace_emoji(symbols: Ints, starts: Ints, count: Number, hits: Ints, tables: Ints) -> Number:
    """Put a tag in the place of each emoji, in place, and return how many symbols are left.

    The rule is: replace key after key in the whole text, in the order of the table. That gives an
    occurrence to its key unless one of its symbols went to an earlier key, or to the same key
    further left. No replacement makes a new occurrence, for tags are in no key. So it comes to the
    same to list all occurrences, to go through them by rank and then by place, and to take each
    that overlaps none taken before. They are listed by place, and the sort by rank is stable. A
    place begins at most as many occurrences as its longest key has symbols, so all is linear.

    Args:
        symbols: int32 [count + 2 or more], changed: the symbols, and zeros after the last one.
        starts: int32 [count + 1 or more], changed: the character at which each symbol begins,
        and the end.
        count: How many symbols there are.
        hits: int32 [hits], the symbols at which an emoji may begin, in order.
        tables: int32 [numbers], of `build_tables`.

    Returns:
        How many symbols are left.
    """
    nodes = tables[tables[NODES] :]
    total = _list_emoji(
        symbols, hits, tables, np.empty(0, dtype=np.int32), np.empty((0, 2), dtype=np.int64)
    )
    if total == 0:
        return count
    places, found = np.empty(total, dtype=np.int32), np.empty((total, 2), dtype=np.int64)
    _list_emoji(symbols, hits, tables, places, found)

    taken_by = np.zeros(count, dtype=np.int64)  # at the first symbol of an emoji: occurrence + 1
    for index in _stable_order_by_rank(found, tables[tables[OWN] :]):
        place, end = places[index], found[index, 1]
        is_free = True
        for symbol_place in range(place, end):
            is_free = is_free and taken_by[symbol_place] == 0
        if is_free:
            for symbol_place in range(place, end):
                taken_by[symbol_place] = -1
            taken_by[place] = index + 1

    joined_end = np.int64(-1)  # end of an emoji that a joiner joins to the next
    place = written = np.int64(0)
    while place < count:
        end = place + 1
        index = taken_by[place] - 1
        symbol, start = symbols[place], starts[place]
        if index >= 0:
            symbol = -(nodes[found[index, 0] * NODE_FIELDS + VALUE] + 1)
            end = found[index, 1]
            if tables[JOINS]:
                while _kind(symbols[end], tables) > 0:
                    end += 1
        is_continued = index >= 0 and place == joined_end
        if index >= 0 and tables[JOINS] and _kind(symbols[end - 1], tables) == KIND_JOINER:
            joined_end = end
        if not is_continued:
            symbols[written], starts[written] = symbol, start
            written += 1
        place = end
    terminate(symbols, starts, written, starts[count])
    return written


@leaf
def _kind(symbol: Number, tables: Ints) -> Number:
    """What a symbol does to an emoji before it: 0 for nothing."""
    if 0 < symbol < OTHER:
        return tables[tables[SYMBOLS] + symbol * SYMBOL_FIELDS + KIND]
    return np.int32(0)


@leaf
def replace_spans(
    symbols: Ints, starts: Ints, count: Number, spans: Ints, first_span: Number, done: Number
) -> tuple[Number, Number]:
    """Put tags in the place of spans, in place.

    Args:
        symbols: int32 [count + 2 or more], of the block.
        starts: int32 [count + 1 or more], character at which each begins, counted in the block.
        count: How many there are.
        spans: int32 [spans, 3]: first symbol, end, and id of the tag, counted in the whole text.
        first_span: The first that is not yet replaced.
        done: Symbols in the blocks before.

    Returns:
        How many symbols are left, and the first span behind this block.
    """
    place = written = np.int64(0)
    while place < count:
        end = place + 1
        symbol, start = symbols[place], starts[place]
        if first_span < len(spans) and spans[first_span, 0] == done + place:
            end = spans[first_span, 1] - done
            symbol = -(spans[first_span, 2] + 1)
            first_span += 1
        symbols[written], starts[written] = symbol, start
        written += 1
        place = end
    terminate(symbols, starts, written, starts[count])
    return written, first_span


@entry
def plain(data: Bytes, tables: Ints, codes: Ints) -> Number:
    """Write the code points of a text without its emoji, spaces and breaks, which become 0.

    Args:
        data: uint8 [bytes], UTF-8.
        tables: See `tables`.
        codes: int32 [bytes], written.

    Returns:
        The number of symbols, or -1 - p if the bytes at p are not UTF-8.
    """
    position = done = np.int64(0)
    while position < data.size:
        end = end_of_block(data, position)
        symbols = np.empty(end - position + PADDING, dtype=np.int32)
        starts = np.empty(symbols.size, dtype=np.int32)
        hits = np.empty(symbols.size, dtype=np.int32)
        position, _, count, found = read(
            data, position, end, data.size, tables, symbols, starts, hits
        )
        if position < 0:
            return position
        if found > 0:
            count = replace_emoji(symbols, starts, count, hits[:found], tables)
        for place in range(count):
            symbol = symbols[place]
            code = max(0, symbol - OTHER)
            if 0 < symbol < OTHER:
                code = tables[tables[SYMBOLS] + symbol * SYMBOL_FIELDS + CODE_POINT]
            codes[done + place] = code
        done += count
    return done
