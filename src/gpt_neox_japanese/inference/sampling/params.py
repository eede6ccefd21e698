"""How ids are to be chosen: the options of one request, checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypedDict

from gpt_neox_japanese.checks import check_integer, check_number
from gpt_neox_japanese.errors import GenerationError

__all__ = ["SamplingKwargs", "SamplingParams", "check_seed", "nth_seed"]


def _option(default: Any, check: Callable[[str, Any], Any], help: str = "") -> Any:  # noqa: A002
    """A field: its default, what makes a checked value of any, and a line for the command line.

    Without such a line it is no option of every command that samples.
    """
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata={"check": check, "help": help})
    return field(default=default, metadata={"check": check, "help": help})


def _number(holds: Callable[[float], bool], range_: str) -> Callable[[str, Any], float]:
    return lambda name, value: check_number(name, value, GenerationError, holds, range_)


def _count(name: str, value: Any) -> int:
    return check_integer(name, value, GenerationError, minimum=0)


def _count_or_none(name: str, value: Any) -> int | None:
    return None if value is None else _count(name, value)


def _bias(name: str, value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping):
        raise GenerationError(f"{name} is {value!r:.60}; it must be a mapping of ids to numbers")
    checked = {}
    for token_id, bias in value.items():
        key = check_integer(f"an id of {name}", token_id, GenerationError, minimum=0)
        checked[key] = check_number(
            f"{name}[{token_id}]",
            bias,
            GenerationError,
            lambda x: abs(x) <= 1e6 or x == -math.inf,
            "-1e6 to 1e6, or minus infinity to forbid the id",
        )
    return checked


def _sequences(name: str, value: Any) -> tuple[tuple[int, ...], ...]:
    def is_sequence(value: Any) -> bool:
        return isinstance(value, Sequence) and not isinstance(value, str)

    if not is_sequence(value) or not all(is_sequence(each) and len(each) for each in value):
        raise GenerationError(
            f"{name} is {value!r:.60}; it must be a list of lists of one id or more"
        )
    return tuple(
        tuple(
            check_integer(f"an id of {name}", token_id, GenerationError, minimum=0)
            for token_id in sequence
        )
        for sequence in value
    )


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next id is chosen. The defaults change nothing: plain sampling.

    This is where options are declared: `GenerationKwargs` has the same, and `neox-ja generate` has
    all but those of ids, `logit_bias` and `bad_words_ids`.

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

    temperature: float = _option(
        1.0,
        _number(lambda x: 0 <= x < math.inf, "0 or more"),
        "Lower is more deterministic; 0 is greedy.",
    )
    top_k: int = _option(0, _count, "Sample from this many likeliest tokens; 0 is all.")
    top_p: float = _option(
        1.0,
        _number(lambda x: 0 < x <= 1, "above 0, at most 1"),
        "Sample from the likeliest that sum to this probability.",
    )
    min_p: float = _option(
        0.0,
        _number(lambda x: 0 <= x <= 1, "0 to 1"),
        "Drop tokens below this fraction of the likeliest.",
    )
    repetition_penalty: float = _option(
        1.0,
        _number(lambda x: 0.01 <= x <= 100, "0.01 to 100; 1 is none"),
        "Above 1 makes tokens of prompt and text less likely.",
    )
    frequency_penalty: float = _option(
        0.0,
        _number(lambda x: abs(x) <= 1e6, "-1e6 to 1e6; 0 is none"),
        "Above 0 makes tokens less likely each time they are written.",
    )
    presence_penalty: float = _option(
        0.0,
        _number(lambda x: abs(x) <= 1e6, "-1e6 to 1e6; 0 is none"),
        "Above 0 makes tokens less likely once they are written.",
    )
    logit_bias: Mapping[int, float] = _option({}, _bias)
    bad_words_ids: Sequence[Sequence[int]] = _option((), _sequences)
    min_new_tokens: int = _option(0, _count, "Do not end the text before so many tokens.")
    logprobs: int | None = _option(None, _count_or_none)

    def __post_init__(self) -> None:
        # What is kept are Python's own numbers, and copies that nobody changes behind the check.
        for option in fields(self):
            value = option.metadata["check"](option.name, getattr(self, option.name))
            object.__setattr__(self, option.name, value)

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


class SamplingKwargs(TypedDict, total=False):
    """The fields of `SamplingParams` as keyword arguments, for type checkers."""

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


def nth_seed(seed: int | None, number: int) -> int | None:
    """The seed of one of several texts, which is what another text with that seed gives alone.

    Args:
        seed: A checked seed; None draws anew each time.
        number: Which of the texts, from 0.

    Returns:
        `seed + number`, beginning again at 0 after the largest; None without a seed.
    """
    return None if seed is None else (seed + number) % 2**64
