from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.sampling.params import SamplingKwargs, SamplingParams


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.inf),
        ("temperature", math.nan),
        ("temperature", "0.8"),
        ("temperature", True),
        ("temperature", None),
        ("top_k", -1),
        ("top_k", 2.5),
        ("top_p", 0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("min_p", 2),
        ("repetition_penalty", 0),
        ("repetition_penalty", math.nan),
        ("frequency_penalty", math.inf),
        ("presence_penalty", math.nan),
        ("logit_bias", [1]),
        ("logit_bias", {"1": 2.0}),
        ("logit_bias", {-1: 2.0}),
        ("logit_bias", {1: math.inf}),
        ("logit_bias", {1: math.nan}),
        ("bad_words_ids", "猫"),
        ("bad_words_ids", [1]),
        ("bad_words_ids", [[]]),
        ("bad_words_ids", [[1, -2]]),
        ("min_new_tokens", -1),
        ("logprobs", -1),
        ("logprobs", 1.5),
    ],
)
def test_option_out_of_range_is_named_with_its_value(name: str, value: Any) -> None:
    with pytest.raises(GenerationError, match=name) as caught:
        SamplingParams(**{name: value})
    assert "must be" in str(caught.value)


def test_numbers_of_numpy_are_numbers() -> None:
    options = SamplingParams(top_k=np.int64(3), temperature=np.float32(0.5))  # type: ignore[arg-type]
    assert options.top_k == 3


def test_options_cannot_be_changed_behind_the_check() -> None:
    bias, words = {1: 2.0}, [[1, 2]]
    options = SamplingParams(logit_bias=bias, bad_words_ids=words)
    bias[-5] = math.nan
    words[0].clear()
    assert options.logit_bias == {1: 2.0}
    assert options.bad_words_ids == ((1, 2),)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"logit_bias": {10: 1.0}}, "logit_bias holds id 10; ids are 0 to 9"),
        ({"bad_words_ids": [[1, 11]]}, "bad_words_ids holds id 11"),
        ({"logprobs": 11}, "logprobs is 11"),
    ],
)
def test_options_are_held_to_the_vocabulary(options: dict[str, Any], said: str) -> None:
    made = SamplingParams(**options)
    made.check(12)
    with pytest.raises(GenerationError, match=said):
        made.check(10)


def test_every_option_can_be_given_by_keyword() -> None:
    assert set(SamplingKwargs.__annotations__) == set(SamplingParams.__annotations__)
