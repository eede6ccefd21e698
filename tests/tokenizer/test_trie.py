from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_neox_japanese.errors import VocabularyError
from gpt_neox_japanese.tokenizer.trie import Trie, build_trie, place_edges

WIDTH = 5
ROOTS = 3
Key = tuple[int, tuple[int, ...]]

KEYS = st.lists(
    st.tuples(
        st.integers(1, ROOTS - 1), st.lists(st.integers(1, 2**WIDTH - 1), max_size=4).map(tuple)
    )
)


def build(keys: list[Key], width: int = WIDTH) -> Trie:
    return build_trie(
        ROOTS,
        width,
        np.array([root for root, _ in keys], dtype=np.int64),
        np.array([symbol for _, key in keys for symbol in key], dtype=np.int64),
        np.array([len(key) for _, key in keys], dtype=np.int64),
    )


@given(KEYS)
def test_keys_end_at_one_node_exactly_if_they_are_equal(keys: list[Key]) -> None:
    ends = build(keys).ends.tolist()
    assert len(set(ends)) == len(set(keys))
    assert len(set(zip(keys, ends, strict=True))) == len(set(keys))


@given(KEYS)
def test_the_way_back_from_a_keys_end_spells_the_key(keys: list[Key]) -> None:
    trie = build(keys)
    for (root, key), end in zip(keys, trie.ends.tolist(), strict=True):
        node, spelled = end, []
        while node >= ROOTS:
            row, symbol = divmod(int(trie.edges[node - ROOTS]), 2**WIDTH)
            node = int(trie.parents[node - ROOTS])
            assert trie.rows[node] == row
            spelled.append(symbol)
        assert (node, tuple(reversed(spelled))) == (root, key)


@given(st.sets(st.integers(0, 2**20)))
def test_every_edge_gets_a_slot_of_its_own(edges: set[int]) -> None:
    slots, bits = place_edges(np.array(sorted(edges), dtype=np.int64), WIDTH)
    assert len(set(slots.tolist())) == len(edges)
    assert all(0 <= slot < 2**bits for slot in slots.tolist())


def test_table_grows_until_all_edges_have_settled() -> None:
    # All in the same eight places of a group, and more of them than two groups hold.
    edges = np.arange(1, 2000, dtype=np.int64) << 8
    slots, bits = place_edges(edges, 8)
    assert len(set(slots.tolist())) == len(edges)
    assert bits > 12


def test_more_edges_than_numbers_of_31_bits_are_refused() -> None:
    with pytest.raises(VocabularyError, match="use fewer entries"):
        build([(1, (2, 3, 4))], width=29)
