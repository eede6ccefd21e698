"""Scores to ids: how the next one is chosen, and what a request remembers from one to the next.

The order is that of transformers' `generate`: logit bias, repetition penalty, frequency and
presence penalties, bad words, minimum length; then temperature, top-k, top-p, min-p; then the draw.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.sampling import filters
from gpt_neox_japanese.inference.sampling.logits_processors import (
    BadWords,
    Tally,
    penalize_frequency,
    penalize_repetition,
)
from gpt_neox_japanese.inference.sampling.params import SamplingParams, check_seed

__all__ = ["Choice", "Sampler", "SamplingParams", "with_logprobs"]

Row: TypeAlias = NDArray[np.float32]

# The largest 1 / temperature: beyond it float32 has infinity, and 0 times that is no number.
_SHARPEST = float(np.finfo(np.float32).max)


class Choice(NamedTuple):
    """One chosen id.

    Attributes:
        id: What was chosen.
        logprob: Its log-probability in the model's own distribution, where they were asked for.
        top: The likeliest ids and their log-probabilities, likeliest first.
    """

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Chooses the ids of one request, one after the other.

    The same logits, seed and prompt give the same ids, whatever other requests do: every choice
    takes one number from a generator of its own.

    Args:
        params: How ids are chosen.
        vocab_size: How many scores a row has.
        stop_ids: Forbidden until `min_new_tokens` are written.
        seed: 0 or more; None draws anew each time.
        prompt_ids: What the request begins with.

    Raises:
        GenerationError: The parameters do not fit the vocabulary, or the seed is out of range.
    """

    def __init__(
        self,
        params: SamplingParams,
        *,
        vocab_size: int,
        stop_ids: Collection[int] = (),
        seed: int | None = None,
        prompt_ids: Sequence[int] = (),
    ) -> None:
        params.check(vocab_size)
        seed = check_seed(seed)
        self._params = params
        self._generator = np.random.Generator(np.random.PCG64(seed))
        self._written = 0
        self._stop_ids = np.array(sorted(stop_ids), dtype=np.intp)
        bias = params.logit_bias
        self._biased = np.fromiter(bias, dtype=np.intp)
        self._bias = np.fromiter(bias.values(), dtype=np.float32)
        self._seen = self._tally = self._bad_words = None
        if params.repetition_penalty != 1:
            self._seen = Tally(vocab_size, prompt_ids)
        if params.frequency_penalty or params.presence_penalty:
            self._tally = Tally(vocab_size)
        if params.bad_words_ids:
            self._bad_words = BadWords(params.bad_words_ids, stop_ids, prompt_ids)

    def choose(self, logits: Row) -> Choice:
        """Choose the next id and remember it.

        Args:
            logits: The model's scores, float32, shape [vocab_size]; left as they are.

        Returns:
            The id, with log-probabilities if the sampling params ask for them.

        Raises:
            GenerationError: The scores are not numbers, or all ids are forbidden.
        """
        # What passes the largest float32 is as good as infinite, and NaN is told below.
        with np.errstate(over="ignore", invalid="ignore"):
            token_id = self._choose_id(self.processed(logits))
        self.remember(token_id)
        if self._params.logprobs is None:
            return Choice(token_id)
        return with_logprobs(token_id, logits, self._params.logprobs)

    def processed(self, logits: Row) -> Row:
        """Scores after bias, penalties and what is forbidden; what is drawn from comes next.

        Args:
            logits: The model's scores, float32 [vocab_size].

        Returns:
            float32 [vocab_size]; `logits` itself if nothing changes.
        """
        params = self._params
        too_early = self._written < params.min_new_tokens
        memories = (self._seen, self._tally, self._bad_words)
        if not too_early and not len(self._bias) and memories == (None, None, None):
            return logits
        scores = logits.copy()
        if len(self._bias):
            scores[self._biased] += self._bias
        if self._seen:
            penalize_repetition(scores, self._seen, params.repetition_penalty)
        if self._tally:
            penalize_frequency(
                scores, self._tally, params.frequency_penalty, params.presence_penalty
            )
        if self._bad_words:
            self._bad_words.forbid(scores)
        if too_early:
            scores[self._stop_ids] = -np.inf
        return scores

    def _choose_id(self, scores: Row) -> int:
        params = self._params
        likeliest = int(scores.argmax())  # of NaN too, if there is one
        highest = scores[likeliest]
        if not math.isfinite(highest):
            raise GenerationError(_why_none(float(highest)))
        if params.temperature == 0:
            return likeliest
        # Drawn before anything else: the i-th id takes the i-th number, whatever is filtered.
        uniform = self._generator.random()
        ids: filters.Positions | None = None  # all of them
        if 0 < params.top_k < len(scores):
            ids = filters.keep_top_k(scores, params.top_k)
            scores = scores[ids]
        weights = scores - highest
        weights *= min(1 / params.temperature, _SHARPEST)
        np.exp(weights, out=weights)
        if params.top_p < 1:
            ids, weights = _narrowed(ids, weights, filters.keep_top_p(weights, params.top_p))
        if params.min_p > 0:
            ids, weights = _narrowed(ids, weights, filters.keep_min_p(weights, params.min_p))
        position = filters.draw(weights, uniform)
        return position if ids is None else int(ids[position])

    def remember(self, token_id: int) -> None:
        """Count an id as written: penalties, bad words and the minimum length heed it.

        Args:
            token_id: Below `vocab_size`.
        """
        self._written += 1
        for memory in (self._seen, self._tally, self._bad_words):
            if memory is not None:
                memory.add(token_id)


def _narrowed(
    ids: filters.Positions | None, weights: Row, kept: filters.Positions
) -> tuple[filters.Positions, Row]:
    """The ids at the positions `kept` (all ids are None), and their weights."""
    return kept if ids is None else ids[kept], weights[kept]


def with_logprobs(token_id: int, logits: Row, count: int) -> Choice:
    """An id with log-probabilities of its own and of the likeliest ids.

    Args:
        token_id: Below `vocab_size`.
        logits: The model's scores, float32 [vocab_size].
        count: How many of the likeliest.

    Returns:
        The id as a choice.

    Raises:
        GenerationError: The scores are not numbers.
    """
    highest = logits.max()
    if not math.isfinite(highest):
        raise GenerationError(_why_none(float(highest)))
    total = float(highest) + math.log(float(np.exp(logits - highest).sum()))
    top = filters.likeliest(logits, count).tolist() if count else []
    return Choice(
        token_id,
        float(logits[token_id]) - total,
        tuple((other, float(logits[other]) - total) for other in top),
    )


def _why_none(highest: float) -> str:
    if highest == -math.inf:
        return (
            "every id is forbidden; take something out of logit_bias or bad_words_ids, or lower"
            " min_new_tokens"
        )
    return (
        f"the model scored an id {highest}, which is no finite number; its weights are broken, or"
        " its dtype is too narrow for it"
    )
