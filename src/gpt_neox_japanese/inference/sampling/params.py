"""How ids are to be chosen: the options of one request, checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from gpt_neox_japanese.checks import check_integer, check_number
from gpt_neox_japanese.errors import GenerationError

__all__ = ["SamplingKwargs", "SamplingParams", "check_seed"]


class SamplingKwargs(TypedDict, total=False):
    """The fields of `SamplingParams` as keyword arguments."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    logit_bias: Mapping[int, float]
    bad_words_ids: Sequence[Sequence[int]]
    min_new_tokens: int
    logprobs: int | None


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next id is chosen. The defaults change nothing: plain sampling.

    Attributes:
        temperature: Below 1 sharpens the distribution, above 1 flattens it; 0 takes the likeliest
            id always.
        top_k: Choose among the `top_k` likeliest ids; 0 is all of them.
        top_p: Choose among the likeliest ids that together have this probability.
        min_p: Choose among ids at least `min_p` times as likely as the likeliest.
        repetition_penalty: Above 1 makes ids of prompt and text less likely (Keskar et al., 2019,
            arXiv:1909.05858).
        frequency_penalty: Taken off an id's score each time that it was written; the prompt does
            not count. OpenAI's definition, and so is the next.
        presence_penalty: Taken off the score of every id that was written at all.
        logit_bias: Id → what is added to its score; minus infinity forbids it.
        bad_words_ids: Sequences of ids that are never completed.
        min_new_tokens: No stop id is chosen before so many ids are written.
        logprobs: None for no log-probabilities; 0 for those of the chosen ids; n for those of the n
            likeliest as well. They are the model's own, before anything above.

    Raises:
        GenerationError: An option is out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    bad_words_ids: Sequence[Sequence[int]] = ()
    min_new_tokens: int = 0
    logprobs: int | None = None

    def __post_init__(self) -> None:
        # What is kept are Python's own numbers, and copies that nobody changes behind the check.
        for name, (holds, range_) in _RANGES.items():
            number = check_number(name, getattr(self, name), GenerationError, holds, range_)
            object.__setattr__(self, name, number)
        for name in ("top_k", "min_new_tokens", "logprobs"):
            value = getattr(self, name)
            if name != "logprobs" or value is not None:
                value = check_integer(name, value, GenerationError, minimum=0)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "logit_bias", _checked_bias(self.logit_bias))
        object.__setattr__(self, "bad_words_ids", _checked_words(self.bad_words_ids))

    def check(self, vocab_size: int) -> None:
        """Hold the options to a model's vocabulary.

        Args:
            vocab_size: How many ids there are.

        Raises:
            GenerationError: An id does not exist, or more log-probabilities are asked for than
                there are ids.
        """
        named = {
            "logit_bias": tuple(self.logit_bias),
            "bad_words_ids": tuple(i for sequence in self.bad_words_ids for i in sequence),
        }
        for name, ids in named.items():
            for token_id in ids:
                if token_id >= vocab_size:
                    raise GenerationError(
                        f"{name} holds id {token_id}; ids are 0 to {vocab_size - 1}"
                    )
        if self.logprobs is not None and self.logprobs > vocab_size:
            raise GenerationError(
                f"logprobs is {self.logprobs}; it must be at most {vocab_size}, the vocabulary"
            )


_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "temperature": (lambda x: 0 <= x < math.inf, "0 or more"),
    "top_p": (lambda x: 0 < x <= 1, "above 0, at most 1"),
    "min_p": (lambda x: 0 <= x <= 1, "0 to 1"),
    "repetition_penalty": (lambda x: 0.01 <= x <= 100, "0.01 to 100; 1 is none"),
    "frequency_penalty": (math.isfinite, "finite; 0 is none"),
    "presence_penalty": (math.isfinite, "finite; 0 is none"),
}


def check_seed(seed: Any) -> int | None:
    """Return the seed of a request: an integer from 0 to 2**64 - 1, or None.

    Args:
        seed: Any object.

    Returns:
        `seed` as Python's int, or None.

    Raises:
        GenerationError: It is something else.
    """
    if seed is None:
        return None
    return check_integer("seed", seed, GenerationError, minimum=0, maximum=2**64 - 1)


def _checked_bias(bias: Any) -> dict[int, float]:
    if not isinstance(bias, Mapping):
        raise GenerationError(f"logit_bias is {bias!r:.60}; it must be a mapping of ids to numbers")
    checked = {}
    for token_id, value in bias.items():
        key = check_integer("an id of logit_bias", token_id, GenerationError, minimum=0)
        checked[key] = check_number(
            f"logit_bias[{token_id}]",
            value,
            GenerationError,
            lambda x: abs(x) <= 1e6 or x == -math.inf,
            "-1e6 to 1e6, or minus infinity to forbid the id",
        )
    return checked


def _checked_words(sequences: Any) -> tuple[tuple[int, ...], ...]:
    def is_sequence(value: Any) -> bool:
        return isinstance(value, Sequence) and not isinstance(value, str)

    if not is_sequence(sequences) or not all(is_sequence(s) and len(s) for s in sequences):
        raise GenerationError(
            f"bad_words_ids is {sequences!r:.60}; it must be a list of lists of one id or more"
        )
    return tuple(
        tuple(
            check_integer("an id of bad_words_ids", token_id, GenerationError, minimum=0)
            for token_id in sequence
        )
        for sequence in sequences
    )
