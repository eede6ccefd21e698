"""The compiled sampling against its twin in NumPy: the very same ids and log-probabilities."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.sampling.sampler import (
    BatchSampler,
    Choice,
    Sampler,
    SamplingParams,
)
from tests.inference.sampling.numpy_twin import NumpySampler

Rows = NDArray[np.float32]
STOP_IDS = (0, 3)

ODD_FLOATS = st.sampled_from([-0.0, 0.0, 1e-45, -1e-38, -math.inf, 3e38, -3e38, 88.0, -104.0, 1.0])
SIZES = st.sampled_from([1, 2, 7, 8, 13, 129, 511, 513, 1000, 1537])


def scores_of(rows: int, size: int) -> st.SearchStrategy[Rows]:
    """Scores with many ties, odd ones, or as a model gives them."""
    shape = (rows, size)
    return st.one_of(
        arrays(np.float32, shape, elements=st.sampled_from([-20, -3, -0.5, 0, -0.0, 1, 9])),
        arrays(np.float32, shape, elements=ODD_FLOATS | st.floats(-30, 30, width=32)),
        st.tuples(st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 1.0, 4.0, 30.0])).map(
            lambda drawn: (
                np.random.default_rng(drawn[0]).standard_normal(shape) * drawn[1]
            ).astype(np.float32)
        ),
    )


def params_of(size: int) -> st.SearchStrategy[SamplingParams]:
    ids = st.integers(0, size - 1)
    number = st.floats(-3, 3) | st.sampled_from([0.0, 1e-300, 1e6, -1e6])
    return st.builds(
        SamplingParams,
        temperature=st.sampled_from([0.0, 1.0, 0.8, 5e-324, 1e-40, 1e30, 1e46]) | st.floats(0, 3),
        top_k=st.sampled_from([0, 1, 2, 40, 2**70]) | st.integers(0, size),
        top_p=st.sampled_from([1.0, 0.9, 0.5, 5e-324, 1 - 2**-53]) | st.floats(0.001, 1),
        min_p=st.sampled_from([0.0, 1.0, 0.05, 5e-324]) | st.floats(0, 1),
        repetition_penalty=st.sampled_from([1.0, 1.15, 0.01, 100.0]) | st.floats(0.5, 2),
        frequency_penalty=number,
        presence_penalty=number,
        logit_bias=st.dictionaries(ids, st.floats(-50, 50) | st.just(-math.inf), max_size=5),
        bad_words_ids=st.lists(st.lists(ids, min_size=1, max_size=4), max_size=5),
        min_new_tokens=st.sampled_from([0, 0, 1, 2, 2**70]),
        logprobs=st.sampled_from([None, None, 0, 1, min(5, size), size]),
    )


def by_twin(twin: NumpySampler, row: Rows) -> Choice | None:
    """What the twin chooses; None if it cannot."""
    with np.errstate(all="ignore"):
        try:
            return twin.choose(row)
        except ValueError:
            return None


@given(st.data())
def test_ids_and_logprobs_are_those_of_numpy(data: st.DataObject) -> None:
    size = data.draw(SIZES)
    num_texts, num_steps = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    prompt = data.draw(st.lists(st.integers(0, size - 1), max_size=8))
    ours, twins = [], []
    for seed in range(num_texts):
        params = data.draw(params_of(size))
        given: dict[str, Any] = {
            "vocab_size": size,
            "stop_ids": [i for i in STOP_IDS if i < size],
            "seed": seed,
            "prompt_ids": prompt,
        }
        ours.append(Sampler(params, **given))
        twins.append(NumpySampler(params, **given))
    batch = BatchSampler(size)
    for _ in range(num_steps):
        logits = data.draw(scores_of(num_texts, size))
        before = logits.copy()
        found = batch.choose(ours, logits, range(num_texts))
        assert np.array_equal(logits, before)
        expected = [by_twin(twin, row) for twin, row in zip(twins, logits, strict=True)]
        assert [None if isinstance(each, GenerationError) else each for each in found] == expected


def test_many_tokens_of_a_real_vocabulary_are_those_of_numpy() -> None:
    size, num_texts = 8000, 6
    options: list[dict[str, Any]] = [
        {},
        {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.15},
        {"top_k": 50, "top_p": 0.95},
        {"top_p": 0.999, "temperature": 3},
        {"min_p": 0.02, "frequency_penalty": 0.5},
        {"temperature": 0, "presence_penalty": 0.7, "logprobs": 3},
    ]
    params = [SamplingParams(**each) for each in options]
    ours = [Sampler(each, vocab_size=size, seed=i) for i, each in enumerate(params)]
    twins = [NumpySampler(each, vocab_size=size, seed=i) for i, each in enumerate(params)]
    batch, random = BatchSampler(size), np.random.default_rng(0)
    for step in range(100):
        logits = (random.standard_normal((num_texts, size)) * (1 + step % 5)).astype(np.float32)
        expected = [twin.choose(row) for twin, row in zip(twins, logits, strict=True)]
        assert batch.choose(ours, logits, range(num_texts)) == expected


@pytest.mark.parametrize("broken", [math.nan, -math.nan, math.inf])
def test_a_row_without_numbers_leaves_its_neighbours_alone(broken: float) -> None:
    logits = np.random.default_rng(0).standard_normal((3, 20)).astype(np.float32)
    logits[1, 7] = broken
    options = SamplingParams(logprobs=1)
    batch = BatchSampler(20)

    def samplers() -> list[Sampler]:
        return [Sampler(options, vocab_size=20, seed=seed) for seed in range(3)]

    first, error, last = batch.choose(samplers(), logits, [0, 1, 2])
    assert isinstance(error, GenerationError)
    assert [first, last] == batch.choose(samplers()[::2], logits, [0, 2])


def test_prompts_are_scored_as_single_rows_are() -> None:
    logits = np.random.default_rng(0).standard_normal((50, 300)).astype(np.float32)
    batch = BatchSampler(300)
    ids, counts = list(range(50)), [row % 4 for row in range(50)]
    together = batch.score(ids, logits, counts)
    alone = [batch.score([i], logits[i : i + 1], [counts[i]])[0] for i in ids]
    assert together == alone
    assert [len(choice.top) for choice in together if isinstance(choice, Choice)] == counts
