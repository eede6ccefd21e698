from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gpt_neox_japanese.tokenizer.kernels.trie import Trie, build_trie, place_rows, share_rows

WIDTH = 5
ROOTS = 3
Key = tuple[int, tuple[int, ...]]

KEYS = st.lists(
    st.tuples(
        st.integers(1, ROOTS - 1), st.lists(st.integers(1, 2**WIDTH - 1), max_size=4).map(tuple)
    )
)
FEW_KEYS = st.lists(
    st.tuples(st.integers(1, ROOTS - 1), st.lists(st.integers(1, 2), max_size=4).map(tuple))
)


def build(keys: list[Key]) -> Trie:
    return build_trie(
        ROOTS,
        WIDTH,
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
            spelled.append(int(trie.symbols[node - ROOTS]))
            node = int(trie.parents[node - ROOTS])
        assert (node, tuple(reversed(spelled))) == (root, key)


@given(st.one_of(KEYS, FEW_KEYS), st.lists(st.integers(0, 1), min_size=200, max_size=200))
def test_rows_are_shared_exactly_if_the_same_follows_everywhere(
    keys: list[Key], few_labels: list[int]
) -> None:
    trie = build(keys)
    labels = np.resize(np.array(few_labels, dtype=np.int64), trie.node_count)
    rows = share_rows(trie, labels)

    def tree(node: int) -> tuple[object, ...]:
        edges = np.flatnonzero(trie.parents == node)
        return tuple(
            (int(trie.symbols[edge]), int(labels[ROOTS + edge]), tree(ROOTS + int(edge)))
            for edge in edges
        )

    depths = [0] * trie.node_count
    for edge, parent in enumerate(trie.parents.tolist()):
        depths[ROOTS + edge] = depths[parent] + 1
    trees = [(depths[node], tree(node)) for node in range(trie.node_count)]
    for node, row in enumerate(rows.tolist()):
        assert (row == -1) == (not trees[node][1])
        if row >= 0:
            assert rows[row] == row
            assert trees[row] == trees[node]
    with_edges = [node for node in range(trie.node_count) if rows[node] >= 0]
    assert len({rows[node] for node in with_edges}) == len({trees[node] for node in with_edges})


@given(st.sets(st.tuples(st.integers(0, 60), st.integers(1, 2**WIDTH - 1))))
def test_every_edge_has_a_slot_and_every_row_a_base_of_its_own(edges: set[tuple[int, int]]) -> None:
    parents, symbols = np.array(sorted(edges), dtype=np.int64).reshape(-1, 2).T
    places = place_rows(parents, symbols, 61, WIDTH)
    bases = places.bases[np.unique(parents)]
    assert len(set(places.slots.tolist())) == len(edges)
    assert len(set(bases.tolist())) == len(bases)
    assert (places.slots == places.bases[parents] + symbols).all()
    assert (places.bases >= 0).sum() == len(bases)
    assert len(bases) == 0 or bases.max() + 2**WIDTH <= places.size


def test_slots_grow_until_all_rows_have_settled() -> None:
    parents = np.repeat(np.arange(500), 31)
    symbols = np.tile(np.arange(1, 32), 500)
    places = place_rows(parents, symbols, 500, WIDTH)
    assert len(set(places.slots.tolist())) == 500 * 31
