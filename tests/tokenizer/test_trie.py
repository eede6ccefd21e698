from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_neox_japanese.errors import VocabularyError
from gpt_neox_japanese.tokenizer.trie import KEY, Trie

SYMBOLS = 20
ROOTS = 3
Keys = set[tuple[int, tuple[int, ...]]]


def insert(trie: Trie, keys: Keys) -> dict[tuple[int, tuple[int, ...]], int]:
    """The node at which each key ends."""
    ordered = sorted(keys)
    ends = trie.insert(
        np.array([root for root, _ in ordered], dtype=np.int64),
        np.array([symbol for _, key in ordered for symbol in key], dtype=np.int64),
        np.array([len(key) for _, key in ordered], dtype=np.int64),
    )
    return dict(zip(ordered, ends.tolist(), strict=True))


KEYS = st.sets(
    st.tuples(st.integers(1, ROOTS - 1), st.lists(st.integers(1, SYMBOLS), max_size=4).map(tuple))
)


@given(KEYS, KEYS)
def test_every_key_ends_at_a_node_of_its_own_below_its_prefixes(first: Keys, second: Keys) -> None:
    trie = Trie(ROOTS, sum(len(key) for _, key in first | second), SYMBOLS)
    ends = insert(trie, first)
    ends |= insert(trie, second)
    assert len(set(ends.values())) == len(first | second)
    for (root, key), node in ends.items():
        if not key:
            assert node == root
            continue
        row, symbol = divmod(int(trie.nodes[node, KEY]), 1 << trie.width)
        assert symbol == key[-1]
        parent = ends.get((root, key[:-1]))
        assert parent is None or trie.rows[parent] == row


@given(KEYS)
def test_inserting_again_finds_the_same_nodes(keys: Keys) -> None:
    trie = Trie(ROOTS, 2 * sum(len(key) for _, key in keys), SYMBOLS)
    assert insert(trie, keys) == insert(trie, keys)


def test_more_edges_than_numbers_of_31_bits_are_refused() -> None:
    trie = Trie(5, 4, 2**29)
    with pytest.raises(VocabularyError, match="use fewer entries"):
        insert(trie, {(1, (2, 3, 4))})
