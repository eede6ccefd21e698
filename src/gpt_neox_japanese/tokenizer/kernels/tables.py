"""A vocabulary as one array of int32, which is all that the kernel reads.

The characters of a text become symbols, small numbers counted from 1, and three kinds of keys are
looked up in one trie of symbols: pieces, tags (`<…>`) and emoji. The array holds, in this order:

    header      HEADER numbers, named below
    characters  code point → what it becomes: a symbol, or 0 if the character is in no key and no
                class, or -(id + 1) if it is written as the tag of that id (a space, a line break)
    symbols     SYMBOL_FIELDS numbers a symbol: code point, kind
    bytes       byte → id
    own         one number a node of the trie
    bases       one number a node: where its row begins; the edge with symbol s leads to base + s
    nodes       NODE_FIELDS numbers a node: ROW and VALUE

ROW is the base of the row that a node stands in, so that one can tell whether an edge is there. It
is -1 at roots and where there is no node. A root of the trie stands for the first symbol of keys:
node s for that of pieces that begin with symbol s; then comes the one for the `<` of tags; then
those of emoji. At the nodes of pieces VALUE is the answer if the text goes no further:

    id << 3 | length << 1 | whether longer pieces may follow

Of all pieces on the way the one with the smallest id is the answer, and the longer one where two
have the same. Where there is none it is the tag of the first symbol's class, and without a class
both id and length are 0. OWN is the id of the piece that ends here, or -1. At a tag OWN is its id.
At an emoji OWN is its rank in the table and VALUE the id of its class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.tokenizer.encoding.normalization import (
    BARRIER,
    DASHES,
    JOINER,
    MODIFIERS,
    REPLACED,
    SPACES,
)
from gpt_neox_japanese.tokenizer.encoding.python_encoder import (
    LONGEST_PIECE,
    SYMBOL_CLASSES,
    byte_ids,
)
from gpt_neox_japanese.tokenizer.kernels.trie import Trie, build_trie, place_rows, share_rows

__all__ = ["build_tables"]

HEADER = 16
(
    SYMBOLS,  # where the section of this name begins
    BYTES,
    OWN,
    BASES,
    NODES,
    WIDTH,  # bits of a symbol
    EMOJI_STARTERS,  # symbols 1 to this one begin an emoji
    LESS_THAN,  # symbol of "<"
    TAG_ROOT,
    EMOJI_ROOTS,  # the root of the emoji that begin with symbol s is this + s
    JOINS,  # whether emoji take their modifiers with them
) = range(11)
SYMBOL_FIELDS = 2
CODE_POINT, KIND = range(SYMBOL_FIELDS)
KIND_MODIFIER, KIND_JOINER = 1, 2

NODE_FIELDS = 2
ROW, VALUE = range(NODE_FIELDS)

CODE_POINTS = 0x110000


def build_tables(
    forms: Mapping[str, int], emoji: Mapping[str, str], *, unknown_id: int, joins: bool
) -> NDArray[np.int32]:
    """Build the array.

    Args:
        forms: Surface form → id.
        emoji: Written emoji → class tag, in order of replacement.
        unknown_id: Id for bytes without one.
        joins: Whether emoji take their modifiers with them (`legacy=False`).

    Returns:
        int32, read-only; the head of this module says what lies where.
    """
    usable = {form: i for form, i in forms.items() if REPLACED.keys().isdisjoint(form)}
    tags = {form: i for form, i in usable.items() if form[0] == "<" and len(form) >= LONGEST_PIECE}
    pieces = {
        form: i for form, i in usable.items() if len(form) <= LONGEST_PIECE and form not in tags
    }
    ranks = {key: rank for rank, key in enumerate(emoji) if _can_match(key)}

    alphabet = _alphabet(pieces, tags, ranks)
    characters = np.zeros(CODE_POINTS, dtype=np.int32)
    characters[alphabet] = np.arange(1, len(alphabet) + 1)
    width = len(alphabet).bit_length()
    starter_count = len({key[0] for key in ranks})
    tag_root = emoji_roots = len(alphabet) + 1
    root_count = emoji_roots + starter_count + 1

    first, symbols, lengths = _symbols_of([*pieces, *tags, *ranks], characters)
    roots = first.copy()
    roots[len(pieces) : len(pieces) + len(tags)] = tag_root
    roots[len(pieces) + len(tags) :] += emoji_roots
    trie = build_trie(root_count, width, roots, symbols, lengths)
    ends = np.split(trie.ends, [len(pieces), len(pieces) + len(tags)])
    own = np.full(trie.node_count, -1, dtype=np.int32)
    for nodes, numbers in zip(ends, (pieces, tags, ranks), strict=True):
        own[nodes] = list(numbers.values())
    values = _answers(trie, own, _class_ids(alphabet, forms))
    values[ends[2]] = [forms[emoji[key]] for key in ranks]

    header = np.zeros(HEADER, dtype=np.int32)
    sections = {
        SYMBOLS: _symbol_records(alphabet),
        BYTES: np.array(byte_ids(forms, unknown_id), dtype=np.int32),
        **_node_sections(trie, own, values, width),
    }
    begin = HEADER + CODE_POINTS
    for name, section in sections.items():
        header[name] = begin
        begin += section.size
    header[WIDTH], header[EMOJI_STARTERS] = width, starter_count
    header[LESS_THAN] = characters[ord("<")]
    header[TAG_ROOT], header[EMOJI_ROOTS], header[JOINS] = tag_root, emoji_roots, joins

    for character, tag in SPACES.items():
        characters[ord(character)] = -(forms[tag] + 1)
    for dash, character in DASHES.items():
        characters[ord(dash)] = characters[ord(character)]
    tables = np.concatenate([header, characters, *map(np.ravel, sections.values())])
    tables.flags.writeable = False
    return tables


def _can_match(key: str) -> bool:
    """Whether an emoji can be found: spaces and dashes are gone before emoji are looked for."""
    return REPLACED.keys().isdisjoint(key) and BARRIER not in key


def _alphabet(
    pieces: Iterable[str], tags: Iterable[str], emoji: Iterable[str]
) -> NDArray[np.int64]:
    """Code points of the symbols 1, 2, …: first those that begin an emoji, for a quick test."""
    starters = {key[0] for key in emoji}
    others = set("".join(chain(pieces, tags, emoji, DASHES.values(), MODIFIERS, "<")))
    others.update(chr(code) for spans in SYMBOL_CLASSES.values() for span in spans for code in span)
    characters = [*sorted(starters), *sorted(others - starters - REPLACED.keys())]
    return np.array(list(map(ord, characters)), dtype=np.int64)


def _symbols_of(
    keys: list[str], characters: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of each key the first symbol; the other symbols of all keys in a row; how many those are."""
    text = "".join(keys).encode("utf-32-le", "surrogatepass")
    symbols = characters[np.frombuffer(text, dtype="<u4")].astype(np.int64)
    lengths = np.fromiter(map(len, keys), dtype=np.int64, count=len(keys))
    begins = np.cumsum(lengths) - lengths
    others = np.ones(len(symbols), dtype=bool)
    others[begins] = False
    return symbols[begins], symbols[others], lengths - 1


def _node_sections(
    trie: Trie, own: NDArray[np.int32], values: NDArray[np.int32], width: int
) -> dict[int, NDArray[np.int32]]:
    """The sections OWN, BASES and NODES, from what they hold at each node of the trie.

    Nodes are renumbered: roots stay, others have the number of their slot, counted behind those.
    """
    rows = share_rows(trie, values.astype(np.int64) << 32 | own.astype(np.int64) & 0xFFFFFFFF)
    kept = np.flatnonzero(rows[trie.parents] == trie.parents)
    parents = trie.parents[kept]
    edges = place_rows(parents, trie.symbols[kept], trie.node_count, width)
    size = trie.root_count + edges.size
    nodes = np.concatenate([np.arange(trie.root_count), trie.root_count + kept])
    places = np.concatenate([np.arange(trie.root_count), trie.root_count + edges.slots])
    bases = np.where(rows < 0, 0, trie.root_count + edges.bases[rows])
    sections = {
        OWN: np.full(size, -1, dtype=np.int32),
        # From 0 on, edges lead to roots, which are in no row.
        BASES: np.zeros(size, dtype=np.int32),
        NODES: np.full((size, NODE_FIELDS), -1, dtype=np.int32),
    }
    sections[OWN][places] = own[nodes]
    sections[BASES][places] = bases[nodes]
    sections[NODES][places, VALUE] = values[nodes]
    sections[NODES][places[trie.root_count :], ROW] = bases[parents]
    return sections


def _answers(trie: Trie, own: NDArray[np.int32], class_ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """The VALUE of each node if it belongs to pieces; of others it means nothing.

    Args:
        trie: Of all keys.
        own: int32 [nodes]: id of the piece that ends at a node, or -1.
        class_ids: int32 [symbols], for symbols 1, 2, …: the id of the class, or -1.
    """
    symbol_count = len(class_ids)
    values = np.zeros(len(own), dtype=np.int32)
    values[1 : symbol_count + 1] = np.where(class_ids >= 0, class_ids << 3 | 1 << 1, 0)
    has_piece = own >= 0
    single = np.flatnonzero(has_piece[: symbol_count + 1])
    values[single] = own[single] << 3 | 1 << 1

    parents = np.concatenate([np.zeros(trie.root_count, dtype=np.int64), trie.parents])
    above = np.arange(1, symbol_count + 1)
    for length in range(2, LONGEST_PIECE + 1):
        level = np.flatnonzero(np.isin(parents, above))
        above = parents[level]
        wins = (own[level] >= 0) & (~has_piece[above] | (own[level] <= values[above] >> 3))
        values[level] = np.where(wins, own[level] << 3 | length << 1, values[above])
        has_piece[level] |= has_piece[above]
        # Only now, because the answers above have been read without this mark.
        values[np.unique(above)] |= 1
        above = level
    return values


def _class_ids(alphabet: NDArray[np.int64], forms: Mapping[str, int]) -> NDArray[np.int32]:
    """For each symbol the id of its class, or -1."""
    ids = np.full(len(alphabet), -1, dtype=np.int32)
    for tag, spans in SYMBOL_CLASSES.items():
        for span in spans:
            ids[(span.start <= alphabet) & (alphabet < span.stop)] = forms[tag]
    return ids


def _symbol_records(alphabet: NDArray[np.int64]) -> NDArray[np.int32]:
    records = np.zeros((len(alphabet) + 1, SYMBOL_FIELDS), dtype=np.int32)
    records[1:, CODE_POINT] = alphabet
    records[1:, KIND][np.isin(alphabet, [*map(ord, MODIFIERS)])] = KIND_MODIFIER
    records[1:, KIND][alphabet == ord(JOINER)] = KIND_JOINER
    return records
