"""The twin's filters against transformers' logits processors of the same names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from transformers.generation import logits_process

from tests.inference.sampling.numpy_twin import (
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    likeliest,
)

Row = NDArray[np.float32]
# Few different values make many ties.
SCORES = arrays(
    np.float32, st.integers(2, 700), elements=st.sampled_from([-20, -3, -0.5, 0, 0.25, 1, 2.5, 9])
) | arrays(np.float32, st.integers(2, 40), elements=st.floats(-20, 20, width=32))


def weights_of(scores: Row) -> Row:
    return np.exp(scores - scores.max())


def by_transformers(processor: Any, scores: Row) -> NDArray[np.intp]:
    kept = processor(None, torch.from_numpy(scores.copy())[None])[0]
    return np.flatnonzero(kept.isfinite().numpy())


@given(SCORES, st.integers(1, 800))
def test_top_k_agrees(scores: Row, k: int) -> None:
    expected = by_transformers(logits_process.TopKLogitsWarper(k), scores)
    assert np.array_equal(keep_top_k(scores, k), expected)


@given(SCORES, st.floats(0.01, 0.99))
def test_top_p_agrees(scores: Row, p: float) -> None:
    weights = weights_of(scores)
    kept = keep_top_p(weights, p)
    # Sums of float32 differ in the last digits, and one id may hang on them. Which of equal weights
    # theirs keeps is not defined; how many is.
    expected = [
        by_transformers(logits_process.TopPLogitsWarper(near), scores)
        for near in (p, p - 1e-6, p + 1e-6)
    ]
    assert any(np.array_equal(np.sort(weights[kept]), np.sort(weights[ids])) for ids in expected)
    tied = np.flatnonzero(weights == weights[kept].min())
    assert np.array_equal(tied[np.isin(tied, kept)], tied[: np.isin(tied, kept).sum()])


@given(SCORES, st.floats(0.01, 1))
def test_min_p_agrees(scores: Row, p: float) -> None:
    kept = keep_min_p(weights_of(scores), p)
    expected = [
        by_transformers(logits_process.MinPLogitsWarper(near), scores)
        for near in (p, p * (1 - 1e-6), min(p * (1 + 1e-6), 1))
    ]
    assert any(np.array_equal(kept, ids) for ids in expected)


@given(SCORES, st.integers(1, 50))
def test_likeliest_come_in_order(scores: Row, count: int) -> None:
    expected = np.lexsort([np.arange(len(scores)), -scores])[:count]
    assert np.array_equal(likeliest(scores, count), expected)


@given(
    arrays(np.float32, st.integers(1, 2000), elements=st.sampled_from([0, 1, 3, 0.1])),
    st.floats(0, 1, exclude_max=True),
)
def test_draw_follows_the_running_sum(weights: Row, uniform: float) -> None:
    if not weights.any():
        weights[-1] = 1
    position = draw(weights, uniform)
    assert weights[position] > 0
    running = weights.cumsum(dtype=np.float64)
    target = uniform * running[-1]
    slack = 1e-5 * running[-1]
    assert running[position] >= target - slack
    assert running[position] - weights[position] <= target + slack


@pytest.mark.parametrize("count", [1, 100, 5000])
def test_draw_never_takes_what_has_no_weight(count: int) -> None:
    weights = np.zeros(3 * count, dtype=np.float32)
    weights[count : 2 * count] = 0.1
    for uniform in (0.0, 5e-324, 0.5, float(np.nextafter(1, 0))):
        assert count <= draw(weights, uniform) < 2 * count
