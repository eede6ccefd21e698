"""The slow twin of `sampling.kernel_sampling`: how one id is chosen, in NumPy, and for one row.

The compiled functions choose the very ids that this chooses. Filters keep positions, ascending.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.inference.sampling.params import SamplingParams
from gpt_neox_japanese.inference.sampling.sampler import Choice

Row: TypeAlias = NDArray[np.float32]
Positions: TypeAlias = NDArray[np.intp]

_BLUNTEST = float(np.finfo(np.float32).tiny)
_SHARPEST = float(np.finfo(np.float32).max)
_LIKELY = 1e-3
_BLOCK = 128


class NumpySampler:
    """Chooses the ids of one request; see `sampling.sampler.Sampler`."""

    def __init__(
        self,
        params: SamplingParams,
        *,
        vocab_size: int,
        stop_ids: Collection[int] = (),
        seed: int | None = None,
        prompt_ids: Sequence[int] = (),
    ) -> None:
        self._params = params
        self._generator = np.random.Generator(np.random.PCG64(seed))
        self._written = 0
        self._stop_ids = np.array(sorted(stop_ids), dtype=np.intp)
        self._biased = np.fromiter(params.logit_bias, dtype=np.intp)
        self._bias = np.fromiter(params.logit_bias.values(), dtype=np.float32)
        self._seen = self._tally = self._bad_words = None
        if params.repetition_penalty != 1:
            self._seen = Tally(vocab_size, prompt_ids)
        if params.frequency_penalty or params.presence_penalty:
            self._tally = Tally(vocab_size)
        if params.bad_words_ids:
            self._bad_words = BadWords(params.bad_words_ids, stop_ids, prompt_ids)

    def choose(self, logits: Row) -> Choice:
        """Choose the next id and remember it."""
        # What passes the largest float32 is as good as infinite, and NaN is told below.
        with np.errstate(over="ignore", invalid="ignore"):
            token_id = self._choose_id(self.processed(logits))
        self.remember(token_id)
        if self._params.logprobs is None:
            return Choice(token_id)
        return with_logprobs(token_id, logits, self._params.logprobs)

    def processed(self, logits: Row) -> Row:
        """Scores after bias, penalties and what is forbidden; what is drawn from comes next."""
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
            raise ValueError(f"nothing can be chosen: {highest}")
        if params.temperature == 0:
            return likeliest
        # Drawn before anything else: the i-th id takes the i-th number, whatever is filtered.
        uniform = self._generator.random()
        ids: Positions | None = None  # all of them
        if 0 < params.top_k < len(scores):
            ids = keep_top_k(scores, params.top_k)
            scores = scores[ids]
        weights = scores - highest
        weights *= max(_BLUNTEST, min(1 / params.temperature, _SHARPEST))
        np.exp(weights, out=weights)
        if params.top_p < 1:
            ids, weights = _narrowed(ids, weights, keep_top_p(weights, params.top_p))
        if params.min_p > 0:
            ids, weights = _narrowed(ids, weights, keep_min_p(weights, params.min_p))
        position = draw(weights, uniform)
        return position if ids is None else int(ids[position])

    def remember(self, token_id: int) -> None:
        """Count an id as written: penalties, bad words and the minimum length heed it."""
        self._written += 1
        for memory in (self._seen, self._tally, self._bad_words):
            if memory is not None:
                memory.add(token_id)


def _narrowed(ids: Positions | None, weights: Row, kept: Positions) -> tuple[Positions, Row]:
    """The ids at the positions `kept` (all ids are None), and their weights."""
    return kept if ids is None else ids[kept], weights[kept]


def with_logprobs(token_id: int, logits: Row, count: int) -> Choice:
    """An id with log-probabilities of its own and of the likeliest ids."""
    highest = logits.max()
    if not math.isfinite(highest):
        raise ValueError(f"nothing can be chosen: {highest}")
    total = float(highest) + math.log(float(np.exp(logits - highest).sum()))
    top = likeliest(logits, count).tolist() if count else []
    return Choice(
        token_id,
        float(logits[token_id]) - total,
        tuple((other, float(logits[other]) - total) for other in top),
    )


class Tally:
    """Which ids have come so far, and how often."""

    def __init__(self, vocab_size: int, ids: Iterable[int] = ()) -> None:
        self._ids = np.empty(vocab_size, dtype=np.intp)
        self._counts = np.zeros(vocab_size, dtype=np.float32)
        self._place: dict[int, int] = {}
        for token_id in ids:
            self.add(token_id)

    def add(self, token_id: int) -> None:
        """Count one id more."""
        place = self._place.setdefault(token_id, len(self._place))
        self._ids[place] = token_id
        self._counts[place] += 1

    @property
    def ids(self) -> NDArray[np.intp]:
        """Each id once, in the order of its first coming."""
        return self._ids[: len(self._place)]

    @property
    def counts(self) -> Row:
        """How often each of `ids` came."""
        return self._counts[: len(self._place)]


def penalize_repetition(scores: Row, seen: Tally, penalty: float) -> None:
    """Divide the positive scores of ids in `seen` by `penalty`, multiply the negative ones.

    From Keskar et al., 2019, arXiv:1909.05858, with transformers' care for the sign.
    """
    before = scores[seen.ids]
    scores[seen.ids] = np.where(before > 0, before / penalty, before * penalty)


def penalize_frequency(scores: Row, written: Tally, frequency: float, presence: float) -> None:
    """Lower the score of every id in `written` by `frequency` for each coming, and `presence` once.

    OpenAI's definition.
    """
    scores[written.ids] -= written.counts * np.float32(frequency) + np.float32(presence)


class BadWords:
    """Sequences of ids that must not be completed."""

    def __init__(
        self, sequences: Sequence[Sequence[int]], stop_ids: Collection[int], ids: Iterable[int]
    ) -> None:
        alone = [s[0] for s in sequences if len(s) == 1 and s[0] not in stop_ids]
        self._always = np.array(alone, dtype=np.intp)
        # Last id before the one that completes → all ids before that one, and that one.
        self._after: defaultdict[int, list[tuple[list[int], int]]] = defaultdict(list)
        for sequence in sequences:
            if len(sequence) > 1:
                *before, last = sequence
                self._after[before[-1]].append((before, last))
        self._ids = list(ids)

    def add(self, token_id: int) -> None:
        """Read one id more."""
        self._ids.append(token_id)

    def forbid(self, scores: Row) -> None:
        """Set the scores of ids that would complete a sequence to minus infinity."""
        scores[self._always] = -np.inf
        ids = self._ids
        for before, last in self._after.get(ids[-1], ()) if ids else ():
            if ids[-len(before) :] == before:
                scores[last] = -np.inf


def keep_top_k(scores: Row, top_k: int) -> Positions:
    """Positions of the `top_k` highest scores, and of those equal to the last of them."""
    last = len(scores) - top_k
    if last <= 0:
        return np.arange(len(scores))
    return np.flatnonzero(scores >= np.partition(scores, last)[last])


def keep_top_p(weights: Row, top_p: float) -> Positions:
    """Positions of the likeliest until their share reaches `top_p`; always at least one.

    Of equal weights the earlier positions are kept first.
    """
    total = float(weights.sum())
    surplus = (1 - top_p) * total
    # Only what may be kept is sorted: few likely ids if they make up the share, as they mostly do;
    # otherwise all but weights up to surplus / count, which together weigh no more than it.
    for least in (_LIKELY * float(weights.max()), surplus / len(weights)):
        near = np.flatnonzero(weights > least)
        candidates = weights[near]
        share = float(candidates.sum())
        if share > total - surplus:
            break
    ascending = np.sort(candidates)
    dropped = _first_beyond(ascending, surplus - (total - share))
    lowest = ascending[dropped]
    stays = candidates >= lowest
    too_many = np.count_nonzero(stays) - (len(ascending) - dropped)
    if too_many:
        stays[np.flatnonzero(candidates == lowest)[-too_many:]] = False
    kept: Positions = near[stays]
    return kept


def keep_min_p(weights: Row, min_p: float) -> Positions:
    """Positions at least `min_p` times as likely as the likeliest."""
    return np.flatnonzero(weights >= min_p * weights.max())


def draw(weights: Row, uniform: float) -> int:
    """A position, each as probable as its weight: where `uniform` falls along their sum."""
    return _first_beyond(weights, uniform * float(weights.sum()))


def likeliest(scores: Row, count: int) -> Positions:
    """Positions of the `count` highest scores, highest first; of equal scores the earlier ones."""
    near = keep_top_k(scores, count)
    return near[np.argsort(-scores[near], kind="stable")][:count]


def _first_beyond(weights: Row, target: float) -> int:
    """First position at which the running sum exceeds `target`.

    Where rounding leaves none, it is the last position that has a weight.
    """
    start = 0
    if len(weights) > 4 * _BLOCK:
        blocks = np.add.reduceat(weights, np.arange(0, len(weights), _BLOCK))
        sums = blocks.cumsum(dtype=np.float64)
        block = _search(sums, target)
        target -= float(sums[block - 1]) if block else 0.0
        start = block * _BLOCK
        weights = weights[start : start + _BLOCK]
    return start + _search(weights.cumsum(dtype=np.float64), target)


def _search(running: NDArray[np.float64], target: float) -> int:
    position = int(running.searchsorted(target, "right"))
    return position if position < len(running) else int(running.searchsorted(running[-1]))
