"""A vocabulary as one array of int32, which is all that the kernel reads.

The characters of a text become symbols, small numbers counted from 1, and three kinds of keys are
looked up in one trie of symbols: pieces, tags (`<…>`) and emoji. The array holds, in this order:

    header      HEADER numbers, named below
    characters  code point → what it becomes: a symbol, or 0 if the character is in no key and no
                class, or -(id + 1) if it is written as the tag of that id (a space, a line break)
    symbols     SYMBOL_FIELDS numbers a symbol: code point, id of its class or -1, kind
    bytes       byte → id
    own         one number a node of the trie
    rows        one number a node
    nodes       FIELDS numbers a node, see `trie`

Roots of the trie: node s is the piece that is symbol s alone; then the node after the `<` of a tag;
then the root of the emoji. At the nodes of pieces VALUE is the answer if the text goes no further:

    id << 3 | length << 1 | whether longer pieces may follow

with length 0 if no piece ends here or before. Of all pieces on the way the one with the smallest
id is the answer, and the longer one where two have the same. OWN is the id of the piece that ends
here, or -1. At a tag OWN is its id. At an emoji OWN is its rank in the table and VALUE the id of
its class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.tokenizer.normalization import (
    BARRIER,
    DASHES,
    JOINER,
    MODIFIERS,
    REPLACED,
    SPACES,
)
from gpt_neox_japanese.tokenizer.reference import LONGEST_PIECE, SYMBOL_CLASSES, byte_ids
from gpt_neox_japanese.tokenizer.trie import VALUE, Trie

__all__ = ["build_tables"]

HEADER = 16
(
    SYMBOLS,  # where the section of this name begins
    BYTES,
    OWN,
    ROWS,
    NODES,
    FIRST_NODE,  # of the hash table
    SHIFT,
    MASK,
    WIDTH,
    EMOJI_STARTERS,  # symbols 1 to this one begin an emoji
    LESS_THAN,  # symbol of "<"
    TAG_ROOT,
    EMOJI_ROOT,
    JOINS,  # whether emoji take their modifiers with them
) = range(14)
SYMBOL_FIELDS = 4
CODE_POINT, CLASS, KIND = range(3)
KIND_MODIFIER, KIND_JOINER = 1, 2

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
    tag_root, emoji_root, first = len(alphabet) + 1, len(alphabet) + 2, len(alphabet) + 3

    edges = sum(map(len, (*tags, *ranks))) + sum(len(piece) - 1 for piece in pieces)
    trie = Trie(first, edges, len(alphabet))
    _insert_pieces(trie, pieces, characters)
    ends = _insert(trie, tag_root, [tag[1:] for tag in tags], characters)
    trie.own[ends] = list(tags.values())
    ends = _insert(trie, emoji_root, list(ranks), characters)
    trie.own[ends] = list(ranks.values())
    trie.nodes[ends, VALUE] = [forms[emoji[key]] for key in ranks]

    header = np.zeros(HEADER, dtype=np.int32)
    sections = {
        SYMBOLS: _symbol_records(alphabet, forms),
        BYTES: np.array(byte_ids(forms, unknown_id), dtype=np.int32),
        OWN: trie.own,
        ROWS: trie.rows,
        NODES: trie.nodes,
    }
    begin = HEADER + CODE_POINTS
    for name, section in sections.items():
        header[name] = begin
        begin += section.size
    header[FIRST_NODE] = first
    header[SHIFT], header[MASK], header[WIDTH] = trie.shift, trie.mask, trie.width
    header[EMOJI_STARTERS] = len({key[0] for key in ranks})
    header[LESS_THAN] = characters[ord("<")]
    header[TAG_ROOT], header[EMOJI_ROOT], header[JOINS] = tag_root, emoji_root, joins

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
    starters = {ord(key[0]) for key in emoji}
    others = {ord(character) for keys in (pieces, tags, emoji) for character in set("".join(keys))}
    others.update(*(span for spans in SYMBOL_CLASSES.values() for span in spans))
    others.update(map(ord, MODIFIERS), map(ord, DASHES.values()), [ord("<")])
    others.difference_update(starters, map(ord, REPLACED))
    return np.array([*sorted(starters), *sorted(others)], dtype=np.int64)


def _insert_pieces(trie: Trie, pieces: Mapping[str, int], characters: NDArray[np.int32]) -> None:
    """Insert the pieces and work out the answer at each of their nodes."""
    symbols, lengths = _symbols_of(list(pieces), characters)
    begins = np.cumsum(lengths) - lengths
    rest = np.ones(len(symbols), dtype=bool)
    rest[begins] = False
    ends = trie.insert(symbols[begins], symbols[rest], lengths - 1)

    trie.own[ends] = list(pieces.values())

    values, own = trie.nodes[:, VALUE], trie.own
    node_of_row = np.zeros(len(trie.rows), dtype=np.int64)
    node_of_row[trie.rows] = np.arange(len(trie.rows))
    parents = np.where(trie.parents() < 0, 0, node_of_row[trie.parents()])
    level = np.arange(1, trie.first - 2)
    values[level] = np.where(own[level] >= 0, own[level] << 3 | 1 << 1, 0)
    for length in range(2, LONGEST_PIECE + 1):
        level = np.flatnonzero(np.isin(parents, level))
        so_far = values[parents[level]]
        wins = (own[level] >= 0) & ((so_far == 0) | (own[level] <= so_far >> 3))
        values[level] = np.where(wins, own[level] << 3 | length << 1, so_far)
        # Only now, because the answers above have been read without this mark.
        values[np.unique(parents[level])] |= 1


def _insert(
    trie: Trie, root: int, keys: list[str], characters: NDArray[np.int32]
) -> NDArray[np.int64]:
    symbols, lengths = _symbols_of(keys, characters)
    return trie.insert(np.full(len(keys), root, dtype=np.int64), symbols, lengths)


def _symbols_of(
    keys: list[str], characters: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The symbols of all keys in a row, and how many each key has."""
    text = "".join(keys).encode("utf-32-le", "surrogatepass")
    lengths = np.fromiter(map(len, keys), dtype=np.int64, count=len(keys))
    return characters[np.frombuffer(text, dtype="<u4")].astype(np.int64), lengths


def _symbol_records(alphabet: NDArray[np.int64], forms: Mapping[str, int]) -> NDArray[np.int32]:
    records = np.full((len(alphabet) + 1, SYMBOL_FIELDS), -1, dtype=np.int32)
    records[1:, CODE_POINT] = alphabet
    for tag, spans in SYMBOL_CLASSES.items():
        for span in spans:
            records[1:, CLASS][np.isin(alphabet, span)] = forms[tag]
    records[1:, KIND] = np.where(np.isin(alphabet, [*map(ord, MODIFIERS)]), KIND_MODIFIER, 0)
    records[1:, KIND][alphabet == ord(JOINER)] = KIND_JOINER
    return records
