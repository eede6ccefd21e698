"""A trie in flat arrays: the edges lie in a hash table, found by parent and symbol.

Every edge lies in one of two slots (cuckoo hashing), so following an edge takes two loads and no
jump that the processor could guess wrong. Neighbouring symbols (both kana, say) hash to
neighbouring slots, which share a cache line. Building takes a few sorts and no loop over keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import VocabularyError

__all__ = ["FIRST_FACTOR", "NEIGHBOURS", "SECOND_FACTOR", "Trie", "build_trie", "place_edges"]

NEIGHBOURS = 3  # 2**3 symbols in a row lie in eight slots in a row

# kernel_symbols.py hashes in the same way.
FIRST_FACTOR = 0x9E3779B1
SECOND_FACTOR = 0x85EBCA77

_MOST_ROUNDS = 500


@dataclass(frozen=True)
class Trie:
    """Nodes: first the roots, whose meaning is the caller's affair; then one for every edge.

    Attributes:
        edges: int64 `(edges,)`: `row of the parent << width | symbol`, all distinct.
        parents: int64 `(edges,)`, the node that each edge begins at.
        rows: int32 `(nodes,)`. Nodes that others follow are numbered by rows; roots have their own
            number. 0 where none follows.
        ends: int64 `(keys,)`, the node that each key ends at.
    """

    edges: NDArray[np.int64]
    parents: NDArray[np.int64]
    rows: NDArray[np.int32]
    ends: NDArray[np.int64]


def build_trie(
    root_count: int,
    width: int,
    roots: NDArray[np.int64],
    symbols: NDArray[np.int64],
    lengths: NDArray[np.int64],
) -> Trie:
    """Build a trie of keys.

    Args:
        root_count: Nodes 0 to this one, excluded, are roots. Node 0 stands for "none".
        width: Bits of a symbol.
        roots: int64 `(keys,)`, the node at which each key begins.
        symbols: int64 `(sum of lengths,)`, the symbols of the keys, all in a row.
        lengths: int64 `(keys,)`.

    Raises:
        VocabularyError: The edges cannot be numbered with 31 bits.
    """
    rows = np.zeros(root_count + len(symbols), dtype=np.int32)
    rows[:root_count] = np.arange(root_count)
    next_row, node_count = root_count, root_count
    nodes = roots.astype(np.int64)
    begins = np.cumsum(lengths) - lengths
    edges, parents = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for depth in range(int(lengths.max(initial=0))):
        active = np.flatnonzero(lengths > depth)
        new = np.unique(nodes[active][rows[nodes[active]] == 0])
        rows[new] = np.arange(next_row, next_row + len(new))
        next_row += len(new)
        if next_row > 1 << (31 - width):
            raise VocabularyError(
                f"{next_row} beginnings of entries over {1 << width} characters are more than the"
                " tokenizer's tables hold; use fewer entries"
            )
        keys = rows[nodes[active]].astype(np.int64) << width | symbols[begins[active] + depth]
        distinct, one, which = np.unique(keys, return_index=True, return_inverse=True)
        edges.append(distinct)
        parents.append(nodes[active[one]])
        nodes[active] = node_count + which
        node_count += len(distinct)
    return Trie(np.concatenate(edges), np.concatenate(parents), rows[:node_count], nodes)


def place_edges(edges: NDArray[np.int64], width: int) -> tuple[NDArray[np.int64], int]:
    """Give each edge a slot of its own.

    An edge takes its other slot when another one takes the slot it has, until all have settled.

    Returns:
        int64 `(edges,)`, and the number of slots as a power of two.
    """
    bits = max(NEIGHBOURS + 1, len(edges).bit_length() + 1)  # a quarter to half of them used
    while True:
        both = np.stack(_two_slots(edges, width, bits))
        choice = np.zeros(len(edges), dtype=np.int64)
        owners = np.full(1 << bits, -1, dtype=np.int64)
        pending = np.arange(len(edges))
        for _ in range(_MOST_ROUNDS):
            slots = both[choice[pending], pending]
            evicted = owners[slots]
            owners[slots] = pending  # of several that want one slot, the last gets it
            refused = pending[owners[slots] != pending]
            pending = np.concatenate([refused, np.unique(evicted[evicted >= 0])])
            if not len(pending):
                return both[choice, np.arange(len(edges))], bits
            choice[pending] ^= 1
        bits += 1


def _two_slots(
    edges: NDArray[np.int64], width: int, bits: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows, symbols = edges >> width, edges & ((1 << width) - 1)
    groups, within = symbols >> NEIGHBOURS, symbols & ((1 << NEIGHBOURS) - 1)
    shift = 32 - (bits - NEIGHBOURS)
    first = (rows * FIRST_FACTOR + groups * SECOND_FACTOR) & 0xFFFFFFFF
    second = (rows * SECOND_FACTOR + groups * FIRST_FACTOR) & 0xFFFFFFFF
    return first >> shift << NEIGHBOURS | within, second >> shift << NEIGHBOURS | within
