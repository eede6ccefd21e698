"""A trie in flat arrays: the edges lie in a hash table, found by parent and symbol.

Building it takes a few sorts and no loop over keys. Following an edge takes one multiplication and
most often one cache line, which edges to neighbouring symbols (both kana, say) share.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import VocabularyError

__all__ = ["FIELDS", "KEY", "NEIGHBOURS", "VALUE", "Trie"]

FIELDS = 2  # int32 numbers a node in `Trie.nodes`, named
KEY, VALUE = range(FIELDS)

NEIGHBOURS = 3  # 2**3 symbols in a row hash to the same eight slots

# kernel_symbols.py hashes in the same way.
ROW_FACTOR = 0x9E3779B1
SYMBOL_FACTOR = 0x85EBCA77


class Trie:
    """Nodes and edges. Nodes below `first` are roots; what they mean is the caller's affair.

    Args:
        first: Number of the first node that is no root. Node 0 stands for "none".
        edges: At most so many edges will be inserted.
        symbols: Symbols are 1 to this one.

    Attributes:
        nodes: int32 `(count, FIELDS)`. Node `first + k` lies in slot k of the hash table. Its KEY
            is `row of its parent << width | symbol`, or -1 where the slot is free. VALUE is the
            caller's.
        rows: int32 `(count,)`. Nodes that others follow are numbered by rows; roots have their own
            number. 0 where none follows.
        own: int32 `(count,)`, the caller's; begins as -1.
        shift: How far a hash of 32 bits is shifted right to become eight slots.
        mask: Last slot.
        width: Bits of a symbol.
    """

    def __init__(self, first: int, edges: int, symbols: int) -> None:
        bits = max(NEIGHBOURS + 1, edges.bit_length() + 1)  # the table is a quarter to half full
        count = first + (1 << bits)
        self.first = first
        self.shift = 32 - (bits - NEIGHBOURS)
        self.mask = (1 << bits) - 1
        self.width = symbols.bit_length()
        self.nodes = np.full((count, FIELDS), -1, dtype=np.int32)
        self.rows = np.zeros(count, dtype=np.int32)
        self.rows[:first] = np.arange(first)
        self.own = np.full(count, -1, dtype=np.int32)
        self._next_row = first

    def insert(
        self, roots: NDArray[np.int64], symbols: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Add keys.

        Args:
            roots: int64 `(keys,)`, the node at which each key begins.
            symbols: int64 `(sum of lengths,)`, the symbols of the keys, all in a row.
            lengths: int64 `(keys,)`.

        Returns:
            int64 `(keys,)`, the node at which each key ends.

        Raises:
            VocabularyError: The keys of so many edges do not fit into 31 bits.
        """
        nodes = roots.astype(np.int64)
        begins = np.cumsum(lengths) - lengths
        for depth in range(int(lengths.max(initial=0))):
            active = np.flatnonzero(lengths > depth)
            rows = self._rows_of(nodes[active])
            keys = rows << self.width | symbols[begins[active] + depth]
            distinct, which = np.unique(keys, return_inverse=True)
            nodes[active] = self._add_edges(distinct)[which]
        return nodes

    def parents(self) -> NDArray[np.int64]:
        """The row of each node's parent, int64 `(count,)`; -1 for roots and free slots."""
        return self.nodes[:, KEY].astype(np.int64) >> self.width

    def _rows_of(self, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of nodes that others are about to follow."""
        new = np.unique(nodes[self.rows[nodes] == 0])
        self.rows[new] = np.arange(self._next_row, self._next_row + len(new))
        self._next_row += len(new)
        if self._next_row >= 1 << (31 - self.width):
            raise VocabularyError(
                f"{self._next_row} beginnings of entries over {(1 << self.width) - 1} characters"
                " are more than the tokenizer's tables hold; use fewer entries"
            )
        return self.rows[nodes].astype(np.int64)

    def _add_edges(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """The nodes that distinct edges lead to, made where they are new."""
        table = self.nodes[self.first :, KEY]
        slots = self._first_slots(keys)
        pending = np.arange(len(keys))
        while len(pending):
            wanted = slots[pending]
            free = np.flatnonzero(table[wanted] < 0)
            # Of several edges that want one free slot, one gets it; the others see it taken.
            taken, first = np.unique(wanted[free], return_index=True)
            table[taken] = keys[pending[free[first]]]
            pending = pending[table[wanted] != keys[pending]]
            slots[pending] = (slots[pending] + 1) & self.mask
        return slots + self.first

    def _first_slots(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where to begin looking for each edge."""
        rows, symbols = keys >> self.width, keys & ((1 << self.width) - 1)
        groups = rows * ROW_FACTOR + (symbols >> NEIGHBOURS) * SYMBOL_FACTOR
        slots = (groups & 0xFFFFFFFF) >> self.shift << NEIGHBOURS
        return slots | symbols & ((1 << NEIGHBOURS) - 1)
