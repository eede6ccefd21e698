from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers.generation import logits_process as theirs

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.sampling.sampler import (
    BatchSampler,
    Choice,
    Sampler,
    SamplingParams,
)
from tests.inference.sampling.numpy_twin import NumpySampler

Row = NDArray[np.float32]
SIZE = 12
SCORES = st.lists(st.floats(-9, 9, width=32), min_size=SIZE, max_size=SIZE).map(
    lambda values: np.array(values, dtype=np.float32)
)
IDS = st.integers(0, SIZE - 1)
PROMPT = [0, 1, 1, 5]
GREEDY: dict[str, Any] = {"temperature": 0}


class Alone:
    """A sampler whose rows come one by one."""

    def __init__(self, sampler: Sampler, vocab_size: int) -> None:
        self._sampler = sampler
        self._batch = BatchSampler(vocab_size)

    def choose(self, row: Row) -> Choice:
        (choice,) = self._batch.choose([self._sampler], row[None], [0])
        if isinstance(choice, GenerationError):
            raise choice
        return choice


def sampler(
    *, vocab_size: int = SIZE, stop_ids: tuple[int, ...] = (), seed: int | None = 0, **options: Any
) -> Alone:
    made = Sampler(
        SamplingParams(**options),
        vocab_size=vocab_size,
        stop_ids=stop_ids,
        seed=seed,
        prompt_ids=PROMPT,
    )
    return Alone(made, vocab_size)


def rows(count: int, size: int = SIZE, spread: float = 2.0) -> Row:
    values = np.random.default_rng(7).standard_normal((count, size)) * spread
    return values.astype(np.float32)


def adjusted(
    scores: Row, written: list[int], stop_ids: tuple[int, ...] = (), **options: Any
) -> Row:
    """The scores from which the twin chooses the id after `written`."""
    params = SamplingParams(**options)
    made = NumpySampler(params, vocab_size=SIZE, stop_ids=stop_ids, prompt_ids=PROMPT)
    for token_id in written:
        made.remember(token_id)
    return made.processed(scores)


def processed(processors: list[Any], scores: Row, written: list[int]) -> Row:
    ids = torch.tensor([PROMPT + written])
    result: Row = theirs.LogitsProcessorList(processors)(
        ids, torch.from_numpy(scores.copy())[None]
    )[0].numpy()
    return result


@given(SCORES, st.lists(IDS, max_size=5), st.floats(0.1, 5))
def test_repetition_penalty_agrees(scores: Row, written: list[int], penalty: float) -> None:
    expected = processed([theirs.RepetitionPenaltyLogitsProcessor(penalty)], scores, written)
    ours = adjusted(scores, written, repetition_penalty=penalty)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


@given(SCORES, st.dictionaries(IDS, st.floats(-50, 50) | st.just(-math.inf), min_size=1))
def test_logit_bias_agrees_with_sequence_bias(scores: Row, bias: dict[int, float]) -> None:
    processor = theirs.SequenceBiasLogitsProcessor({(i,): value for i, value in bias.items()})
    expected = processed([processor], scores, [])
    np.testing.assert_allclose(adjusted(scores, [], logit_bias=bias), expected, rtol=1e-6)


@given(
    SCORES,
    st.lists(IDS, max_size=5),
    st.lists(st.lists(st.sampled_from([0, 1, 5, 7]), min_size=1, max_size=3), min_size=1),
)
def test_bad_words_agree(scores: Row, written: list[int], words: list[list[int]]) -> None:
    if all(word == [7] for word in words):
        words.append([1, 5, 3])  # theirs refuses to be left with nothing
    processor = theirs.NoBadWordsLogitsProcessor(words, eos_token_id=7)
    expected = processed([processor], scores, written)
    ours = adjusted(scores, written, bad_words_ids=words, stop_ids=(7,))
    assert np.array_equal(ours, expected)


@given(SCORES, st.lists(IDS, max_size=4), st.integers(1, 4))
def test_minimum_length_agrees(scores: Row, written: list[int], minimum: int) -> None:
    processor = theirs.MinNewTokensLengthLogitsProcessor(len(PROMPT), minimum, [2, 7])
    expected = processed([processor], scores, written)
    ours = adjusted(scores, written, min_new_tokens=minimum, stop_ids=(2, 7))
    assert np.array_equal(ours, expected)


@given(SCORES, st.lists(IDS, max_size=6), st.floats(-2, 2), st.floats(-2, 2))
def test_frequency_and_presence_follow_their_definition(
    scores: Row, written: list[int], frequency: float, presence: float
) -> None:
    ours = adjusted(scores, written, frequency_penalty=frequency, presence_penalty=presence)
    for token_id in range(SIZE):
        count = written.count(token_id)  # of the prompt's ids, none counts
        expected = scores[token_id] - count * frequency - (count > 0) * presence
        assert ours[token_id] == pytest.approx(expected, abs=1e-5)


def test_everything_together_follows_the_order_of_generate() -> None:
    options: dict[str, Any] = {
        "temperature": 0.7,
        "top_k": 8,
        "top_p": 0.9,
        "min_p": 0.05,
        "repetition_penalty": 1.3,
        "logit_bias": {4: 1.0},
        "bad_words_ids": [[5, 3], [9]],
        "min_new_tokens": 3,
    }
    processors = [
        theirs.SequenceBiasLogitsProcessor({(4,): 1.0}),
        theirs.RepetitionPenaltyLogitsProcessor(1.3),
        theirs.NoBadWordsLogitsProcessor([[5, 3], [9]], eos_token_id=7),
        theirs.MinNewTokensLengthLogitsProcessor(len(PROMPT), 3, [7]),
        theirs.TemperatureLogitsWarper(0.7),
        theirs.TopKLogitsWarper(8),
        theirs.TopPLogitsWarper(0.9),
        theirs.MinPLogitsWarper(0.05),
    ]
    for scores in rows(6):
        final = torch.from_numpy(processed(processors, scores, [])).softmax(-1)
        expected = {i: p for i, p in enumerate(final.tolist()) if p}
        counts = dict.fromkeys(range(SIZE), 0)
        for seed in range(2000):
            counts[sampler(seed=seed, stop_ids=(7,), **options).choose(scores).id] += 1
        for token_id, count in counts.items():
            p = expected.get(token_id, 0)
            assert abs(count - 2000 * p) <= 5 * math.sqrt(2000 * p * (1 - p))


def test_temperature_zero_takes_the_likeliest() -> None:
    made = sampler(**GREEDY)
    assert [made.choose(row).id for row in rows(20)] == rows(20).argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [1e-300, 1e-40, 1e-6])
def test_temperature_near_zero_is_greedy(temperature: float) -> None:
    made = sampler(temperature=temperature, top_p=0.9)
    assert [made.choose(row).id for row in rows(20)] == rows(20).argmax(-1).tolist()


def test_seed_decides_the_ids() -> None:
    logits = rows(30, 1000)

    def ids(seed: int | None) -> list[int]:
        made = sampler(vocab_size=1000, seed=seed)
        return [made.choose(row).id for row in logits]

    assert ids(1) == ids(1)
    assert ids(1) != ids(2)
    assert ids(None) != ids(None)


def test_each_choice_takes_one_draw_whatever_is_filtered() -> None:
    filtering, free = sampler(vocab_size=1000, min_p=0.5), sampler(vocab_size=1000)
    coin = np.full(1000, -np.inf, np.float32)
    coin[[3, 7]] = 0  # both are left whatever is filtered
    tosses = []
    for row in rows(40, 1000):
        filtering.choose(row)
        free.choose(row)
        tosses.append(free.choose(coin).id)
        assert filtering.choose(coin).id == tosses[-1]
    assert set(tosses) == {3, 7}


def test_logits_are_left_as_they_are() -> None:
    (logits,) = rows(1)
    before = logits.copy()
    logits.flags.writeable = False
    for options in ({}, {"repetition_penalty": 2}, {"top_p": 0.5, "logprobs": 2}):
        sampler(**options).choose(logits)
    assert np.array_equal(logits, before)


def test_logprobs_are_the_models_own() -> None:
    (logits,) = rows(1)
    expected = torch.from_numpy(logits).log_softmax(-1)
    made = sampler(temperature=0.3, top_k=2, repetition_penalty=3, logit_bias={3: 20}, logprobs=4)
    chosen = made.choose(logits)
    assert chosen.id == 3
    assert chosen.logprob == pytest.approx(float(expected[3]), abs=1e-5)
    values, ids = expected.topk(4)
    assert [i for i, _ in chosen.top] == ids.tolist()
    assert [p for _, p in chosen.top] == pytest.approx(values.tolist(), abs=1e-5)


def test_logprobs_of_the_chosen_only_and_none() -> None:
    (logits,) = rows(1)
    with_own = sampler(logprobs=0, **GREEDY).choose(logits)
    assert with_own.logprob is not None
    assert with_own.top == ()
    assert sampler(**GREEDY).choose(logits) == Choice(int(logits.argmax()))


def test_every_id_forbidden_is_told() -> None:
    made = sampler(logit_bias=dict.fromkeys(range(SIZE), -math.inf))
    with pytest.raises(GenerationError, match="every id is forbidden"):
        made.choose(rows(1)[0])


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("options", [GREEDY, {}, {"top_p": 0.5, "repetition_penalty": 1.2}])
def test_scores_that_are_no_numbers_are_told(value: float, options: dict[str, Any]) -> None:
    (logits,) = rows(1)
    logits[9] = value
    with pytest.raises(GenerationError, match="no finite number"):
        sampler(**options).choose(logits)


@pytest.mark.parametrize("temperature", [1e30, 1e40, 1e46, 1e308])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_no_temperature_allows_what_is_forbidden(temperature: float, top_p: float) -> None:
    made = sampler(temperature=temperature, top_p=top_p, logit_bias={0: -math.inf, 3: -math.inf})
    chosen = {made.choose(row).id for row in rows(200)}
    assert not chosen & {0, 3}
    assert len(chosen) > SIZE // 2  # nearly all are alike


def test_frequent_ids_give_way() -> None:
    made = sampler(frequency_penalty=5, **GREEDY)
    ids = [made.choose(np.zeros(SIZE, dtype=np.float32)).id for _ in range(2 * SIZE)]
    assert ids == [*range(SIZE), *range(SIZE)]


def test_a_bad_word_is_never_completed() -> None:
    logits = rows(400, SIZE, spread=1)
    made = sampler(bad_words_ids=[[2, 3], [4]])
    ids = [made.choose(row).id for row in logits]
    assert 4 not in ids
    assert (2, 3) not in pairwise(ids)
    assert {2, 3} <= set(ids)
