"""A trie in flat arrays, in which following an edge takes one look.

The edges of a node are its row. Each row has a base, and its edge with symbol s lies in slot
base + s. Bases are distinct and such that no slot is wanted twice, and a slot remembers the base of
its row, because others look there, too. This is known as row displacement or a double array.

Nodes whose rows are equal share one. In a vocabulary most are: whatever follows カ follows か, too,
where both stand for one id. Building takes a few sorts and draws, and no loop over keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Places", "Trie", "build_trie", "place_rows", "share_rows"]

_ROOM = 1.5  # slots for each edge at first
_SHORT = 8  # edges; rows of no more than these can be left to chance
_TRIES = 256  # bases that are tried at once for a long row
_MIXERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)


@dataclass(frozen=True)
class Trie:
    """Nodes: first the roots, whose meaning is the caller's affair; then one for every edge.

    Attributes:
        root_count: Nodes 0 to this one, excluded, are roots.
        parents: int64 [edges], the node that each edge begins at, never falling.
        symbols: int64 [edges], the symbol of each edge; rising among those of one node.
        levels: The edges of each depth, from roots to leaves.
        ends: int64 [keys], the node that each key ends at.
    """

    root_count: int
    parents: NDArray[np.int64]
    symbols: NDArray[np.int64]
    levels: tuple[slice, ...]
    ends: NDArray[np.int64]

    @property
    def node_count(self) -> int:
        """How many nodes there are, roots included."""
        return self.root_count + len(self.parents)


@dataclass(frozen=True)
class Places:
    """Where the edges of some rows lie.

    Attributes:
        bases: int64 [nodes]: the base of each row, by the node whose row it is; -1 elsewhere.
        slots: int64 [edges]: base + symbol, all distinct.
        size: How many slots there are; every base + every symbol is less.
    """

    bases: NDArray[np.int64]
    slots: NDArray[np.int64]
    size: int


def build_trie(
    root_count: int,
    width: int,
    roots: NDArray[np.int64],
    symbols: NDArray[np.int64],
    lengths: NDArray[np.int64],
) -> Trie:
    """Build a trie of keys.

    Args:
        root_count: Nodes 0 to this one, excluded, are roots.
        width: Bits of a symbol.
        roots: int64 [keys], the node at which each key begins.
        symbols: int64 [sum of lengths], the symbols of the keys, all in a row.
        lengths: int64 [keys].

    Returns:
        The trie: roots, edges, and the node that each key ends at.
    """
    edge_count = 0
    nodes = roots.astype(np.int64)
    begins = np.cumsum(lengths) - lengths
    edges, levels = [np.empty(0, dtype=np.int64)], []  # parent << width | symbol
    for depth in range(int(lengths.max(initial=0))):
        active = np.flatnonzero(lengths > depth)
        keys = nodes[active] << width | symbols[begins[active] + depth]
        distinct, which = np.unique(keys, return_inverse=True)
        edges.append(distinct)
        levels.append(slice(edge_count, edge_count + len(distinct)))
        nodes[active] = root_count + edge_count + which
        edge_count += len(distinct)
    joined = np.concatenate(edges)
    return Trie(root_count, joined >> width, joined & ((1 << width) - 1), tuple(levels), nodes)


def share_rows(trie: Trie, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find equal rows: those whose edges have the same symbols, labels, and rows to follow.

    Args:
        trie: Any.
        labels: int64 [nodes], all that is to be known of a node but its row.

    Returns:
        int64 [nodes]: the node whose row stands for that of each node; -1 if it has no edges.
    """
    rows = np.full(trie.node_count, -1, dtype=np.int64)
    for level in reversed(trie.levels):
        parents, begins, sizes = np.unique(
            trie.parents[level], return_index=True, return_counts=True
        )
        nodes = trie.root_count + np.arange(level.start, level.stop)
        edges = np.stack([trie.symbols[level], labels[nodes], rows[nodes]])
        # Equal rows have equal sums. Whether rows with equal sums are equal is looked up.
        mixed = (edges.astype(np.uint64) * _MIXERS[:, None]).sum(axis=0, dtype=np.uint64)
        mixed = (mixed ^ (mixed >> np.uint64(29))) * _MIXERS[1]
        sums = np.add.reduceat(mixed, begins) + sizes.astype(np.uint64)
        _, first, which = np.unique(sums, return_index=True, return_inverse=True)
        first = first[which]
        is_same = sizes == sizes[first]
        first[~is_same] = np.flatnonzero(~is_same)
        here, starts = _spread(begins, sizes)
        there, _ = _spread(begins[first], sizes)
        differs = np.logical_or.reduceat((edges[:, here] != edges[:, there]).any(axis=0), starts)
        rows[parents] = parents[np.where(differs, np.arange(len(parents)), first)]
    return rows


def place_rows(
    parents: NDArray[np.int64], symbols: NDArray[np.int64], node_count: int, width: int
) -> Places:
    """Choose the base of every row: of long rows one by one, then of all short ones together.

    Args:
        parents: int64 [edges], the node whose row each edge belongs to, never falling.
        symbols: int64 [edges].
        node_count: How many nodes there are.
        width: Bits of a symbol.

    Returns:
        The base of each row and the slot of each edge.
    """
    owners, begins, sizes = np.unique(parents, return_index=True, return_counts=True)
    longest_first = np.argsort(-sizes, kind="stable")
    slots = _Slots(int(len(parents) * _ROOM) + 1, 1 << width)
    chosen = np.empty(len(owners), dtype=np.int64)
    long_count = np.count_nonzero(sizes > _SHORT)
    for row in longest_first[:long_count]:
        chosen[row] = slots.place(symbols[begins[row] : begins[row] + sizes[row]])
    short = longest_first[long_count:]
    edges, starts = _spread(begins[short], sizes[short])
    chosen[short] = slots.place_many(symbols[edges], starts, sizes[short])
    bases = np.full(node_count, -1, dtype=np.int64)
    bases[owners] = chosen
    return Places(bases, bases[parents] + symbols, slots.taken.shape[1])


class _Slots:
    """Which slots and which bases are taken; there is more room whenever none is found.

    Args:
        limit: Bases are less, for now.
        widest: No symbol is as large.
    """

    def __init__(self, limit: int, widest: int) -> None:
        self._limit = limit
        self._draw = np.random.default_rng(0)
        self.taken = np.zeros((2, limit + widest), dtype=bool)  # slots, bases

    def place(self, symbols: NDArray[np.int64]) -> int:
        """The base of one row: of many that are drawn, one that fits."""
        while True:
            bases = self._draw.integers(0, self._limit, _TRIES)
            slots = bases[:, None] + symbols
            fits = np.flatnonzero(~self.taken[0, slots].any(axis=1) & ~self.taken[1, bases])
            if len(fits):
                self.taken[0, slots[fits[0]]] = self.taken[1, bases[fits[0]]] = True
                return int(bases[fits[0]])
            self._grow()

    def place_many(
        self, symbols: NDArray[np.int64], starts: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The bases of many rows, which lie in `symbols` one after the other.

        In each round all draw a base, and those keep it whose slots nobody else has or wants.
        """
        chosen = np.empty(len(sizes), dtype=np.int64)
        pending = np.arange(len(sizes))
        while len(pending):
            edges, begins = _spread(starts[pending], sizes[pending])
            numbers = np.arange(len(pending))
            which = np.repeat(numbers, sizes[pending])
            bases = self._draw.integers(0, self._limit, len(pending))
            slots = bases[which] + symbols[edges]
            wanted_by = np.empty(self.taken.shape, dtype=np.int64)
            wanted_by[0, slots], wanted_by[1, bases] = which, numbers
            misfits = self.taken[0, slots] | (wanted_by[0, slots] != which)
            fits = ~np.logical_or.reduceat(misfits, begins)
            fits &= ~self.taken[1, bases] & (wanted_by[1, bases] == numbers)
            self.taken[0, slots[fits[which]]] = self.taken[1, bases[fits]] = True
            chosen[pending[fits]] = bases[fits]
            pending = pending[~fits]
            if not fits.any():
                self._grow()
        return chosen

    def _grow(self) -> None:
        more = self._limit // 8 + 1
        self._limit += more
        self.taken = np.pad(self.taken, [(0, 0), (0, more)])


def _spread(
    begins: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The `sizes[i]` numbers from `begins[i]` on, for all i, and where those of each lie."""
    starts = np.cumsum(sizes) - sizes
    return np.arange(sizes.sum()) + np.repeat(begins - starts, sizes), starts
