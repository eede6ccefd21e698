"""Each filter against transformers' logits processor of the same name."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.sampling import (
    SamplingOptions,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    sample,
)

SCORES = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=40).map(torch.tensor)
CONTEXT = torch.tensor([0, 1, 1])


def by_transformers(processor: Any, scores: torch.Tensor) -> torch.Tensor:
    return processor(CONTEXT[None], scores[None].clone())[0]


@settings(deadline=None)
@given(SCORES, st.integers(1, 50))
def test_top_k_agrees(scores: torch.Tensor, k: int) -> None:
    expected = by_transformers(logits_process.TopKLogitsWarper(k), scores)
    assert torch.equal(keep_top_k(scores, k), expected)


@settings(deadline=None)
@given(SCORES, st.floats(0.01, 0.99))
def test_top_p_agrees(scores: torch.Tensor, p: float) -> None:
    expected = by_transformers(logits_process.TopPLogitsWarper(p), scores)
    assert torch.equal(keep_top_p(scores, p), expected)


@settings(deadline=None)
@given(SCORES, st.floats(0.01, 1))
def test_min_p_agrees(scores: torch.Tensor, p: float) -> None:
    expected = by_transformers(logits_process.MinPLogitsWarper(p), scores)
    assert torch.equal(keep_min_p(scores, p), expected)


@settings(deadline=None)
@given(SCORES, st.floats(0.1, 5))
def test_repetition_penalty_agrees(scores: torch.Tensor, penalty: float) -> None:
    processor = logits_process.RepetitionPenaltyLogitsProcessor(penalty)
    expected = by_transformers(processor, scores)
    assert torch.allclose(penalize_repetition(scores, CONTEXT, penalty), expected)


def test_defaults_leave_scores_alone() -> None:
    scores = torch.tensor([0.5, -1.0, 2.0])
    options = SamplingOptions()
    assert keep_top_k(scores, options.top_k) is scores
    assert keep_top_p(scores, options.top_p) is scores
    assert keep_min_p(scores, options.min_p) is scores
    assert penalize_repetition(scores, CONTEXT, options.repetition_penalty) is scores


def draw(count: int, **options: float) -> list[int]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([1.0, 2.0, 3.0, -4.0]).log_softmax(-1)
    chosen = SamplingOptions(**options)  # type: ignore[arg-type]
    return [sample(logits, CONTEXT, chosen, generator) for _ in range(count)]


def test_temperature_zero_takes_the_likeliest() -> None:
    assert set(draw(20, temperature=0)) == {2}


def test_ids_are_drawn_as_often_as_they_are_likely() -> None:
    ids = draw(4000)
    expected = torch.tensor([1.0, 2.0, 3.0, -4.0]).softmax(-1)
    for token_id in range(4):
        # Four standard deviations of a count around its mean.
        p = float(expected[token_id])
        assert abs(ids.count(token_id) - 4000 * p) < 4 * math.sqrt(4000 * p * (1 - p)) + 1


def test_high_temperature_draws_the_unlikely() -> None:
    assert draw(400, temperature=20).count(3) > 20


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"temperature": math.inf},
        {"temperature": math.nan},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"min_p": 2},
        {"repetition_penalty": 0},
        {"repetition_penalty": math.nan},
    ],
)
def test_option_out_of_range_is_named(options: dict[str, float]) -> None:
    (name,) = options
    with pytest.raises(GenerationError, match=name):
        SamplingOptions(**options)  # type: ignore[arg-type]
