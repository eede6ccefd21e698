"""From logits to the next id. Pure functions on one row of scores, and the options that steer them.

Every filter takes scores, float32 of shape `(vocab_size,)`, and gives new ones of the same shape;
what must not be chosen has the score `-inf`. They agree with transformers' logits processors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt_neox_japanese.errors import GenerationError

__all__ = [
    "SamplingOptions",
    "keep_min_p",
    "keep_top_k",
    "keep_top_p",
    "penalize_repetition",
    "sample",
]


@dataclass(frozen=True)
class SamplingOptions:
    """How the next id is chosen. The defaults change nothing: plain sampling.

    Attributes:
        temperature: Below 1 sharpens the distribution, above 1 flattens it; 0 takes the likeliest
            id always.
        top_k: Choose among the `top_k` likeliest ids; 0 is all of them.
        top_p: Choose among the likeliest ids that together have this probability.
        min_p: Choose among ids at least `min_p` times as likely as the likeliest.
        repetition_penalty: Above 1 makes ids that stand in the context less likely (Keskar et al.,
            2019, arXiv:1909.05858).

    Raises:
        GenerationError: An option is out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        _require("temperature", self.temperature, 0 <= self.temperature < math.inf, "0 or more")
        _require("top_k", self.top_k, self.top_k >= 0, "0 (all ids) or more")
        _require("top_p", self.top_p, 0 < self.top_p <= 1, "above 0, at most 1")
        _require("min_p", self.min_p, 0 <= self.min_p <= 1, "0 to 1")
        penalty = self.repetition_penalty
        _require("repetition_penalty", penalty, 0 < penalty < math.inf, "above 0; 1 is none")


def sample(
    logits: Tensor, context: Tensor, options: SamplingOptions, generator: torch.Generator
) -> int:
    """Choose the next id.

    Args:
        logits: Scores of the next id, any float dtype, shape `(vocab_size,)`.
        context: The ids so far, int64, shape `(length,)`.
        options: Which ids may be chosen, and how eagerly.
        generator: Source of randomness, on the logits' device.
    """
    scores = penalize_repetition(logits.float(), context, options.repetition_penalty)
    if options.temperature == 0:
        return int(scores.argmax())
    scores = scores / options.temperature
    scores = keep_top_k(scores, options.top_k)
    scores = keep_top_p(scores, options.top_p)
    scores = keep_min_p(scores, options.min_p)
    return int(torch.multinomial(scores.softmax(-1), 1, generator=generator))


def penalize_repetition(scores: Tensor, context: Tensor, penalty: float) -> Tensor:
    """Divide the positive scores of ids in `context` by `penalty`, multiply the negative ones."""
    if penalty == 1:
        return scores
    seen = scores[context]
    return scores.index_put((context,), torch.where(seen > 0, seen / penalty, seen * penalty))


def keep_top_k(scores: Tensor, top_k: int) -> Tensor:
    """Keep the `top_k` highest scores, and those equal to the last of them."""
    if top_k == 0 or top_k >= scores.numel():
        return scores
    return scores.masked_fill(scores < scores.topk(top_k).values[-1], -math.inf)


def keep_top_p(scores: Tensor, top_p: float) -> Tensor:
    """Keep the likeliest ids until their probabilities reach `top_p`; always at least one."""
    if top_p == 1:
        return scores
    ascending, order = scores.sort()
    below = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
    below[-1] = False
    return scores.masked_fill(torch.empty_like(below).scatter(0, order, below), -math.inf)


def keep_min_p(scores: Tensor, min_p: float) -> Tensor:
    """Keep the ids whose probability is at least `min_p` times the highest."""
    if min_p == 0:
        return scores
    probabilities = scores.softmax(-1)
    return scores.masked_fill(probabilities < min_p * probabilities.max(), -math.inf)


def _require(name: str, value: float, holds: bool, range_: str) -> None:
    if not holds:
        raise GenerationError(f"{name} is {value}; it must be {range_}")
