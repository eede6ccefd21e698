"""Scores to ids: how the next one is chosen, and what a request remembers from one to the next.

The order is that of transformers' `generate`: logit bias, repetition penalty, frequency and
presence penalties, bad words, minimum length; then temperature, top-k, top-p, min-p; then the draw.
`Sampler` is what belongs to one request, `BatchSampler` chooses for all of a step at once. The
arithmetic is compiled (`kernel_sampling`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.sampling import kernel_sampling as kernel
from gpt_neox_japanese.inference.sampling.params import SamplingParams, check_seed
from gpt_neox_japanese.kernels.aligned import aligned

__all__ = ["BatchSampler", "Choice", "Sampler", "SamplingParams"]

Rows: TypeAlias = NDArray[np.float32]

# Limits of 1 / temperature: beyond them float32 has 0 and infinity, and one times the other is no
# number.
_BLUNTEST = float(np.finfo(np.float32).tiny)
_SHARPEST = float(np.finfo(np.float32).max)

_ADDRESSES_OF_MEMORY = (kernel.SEEN, kernel.WRITTEN, kernel.BAD_WORDS)

_ROWS_SCORED_AT_ONCE = 16  # so that room for a long prompt's scores stays small


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
    """How the ids of one request are chosen, and what it remembers of them.

    The same logits, seed and prompt give the same ids, whatever other requests do: every choice
    takes one number from a generator of its own.

    Args:
        params: How ids are chosen.
        vocab_size: How many scores a row has.
        stop_ids: Forbidden until `min_new_tokens` are written.
        seed: 0 or more; None draws anew each time.
        prompt_ids: What the request begins with.

    Attributes:
        logprobs: As in `SamplingParams`; and so are:
        top_k: 0 for all.
        top_p: A share.
        min_p: A share.
        sharpen: What scores are multiplied by, 1 / temperature; 0 takes the likeliest id.
        changes_scores: Whether there is anything that `kernel_sampling.process_rows` does.
        address: Of its record, for `process_rows`.

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
        self._generator = np.random.Generator(np.random.PCG64(check_seed(seed)))
        self.logprobs = params.logprobs
        self.top_k = min(params.top_k, vocab_size)
        self.top_p, self.min_p = params.top_p, params.min_p
        self.sharpen = 0.0
        if params.temperature:
            self.sharpen = max(_BLUNTEST, min(1 / params.temperature, _SHARPEST))
        self._record = np.zeros(kernel.NUM_FIELDS, np.int64)
        self.address = self._record.ctypes.data
        self._arrays: list[NDArray[Any]] = []  # that the record gives the addresses of
        self._record[kernel.LAST] = -1
        floats = self._record.view(np.float64)
        floats[kernel.REPETITION] = params.repetition_penalty
        floats[kernel.FREQUENCY] = params.frequency_penalty
        floats[kernel.PRESENCE] = params.presence_penalty
        self._record[kernel.MIN_NEW_TOKENS] = min(params.min_new_tokens, 2**62)
        self._put(kernel.STOP_IDS, np.array(sorted(stop_ids), np.int32))
        self._put(kernel.BIASED, np.fromiter(params.logit_bias, np.int32))
        self._put(kernel.BIAS, np.fromiter(params.logit_bias.values(), np.float32), with_size=False)
        if params.repetition_penalty != 1:
            self._put_table(kernel.SEEN, vocab_size, prompt_ids)
        if params.frequency_penalty or params.presence_penalty:
            self._put_table(kernel.WRITTEN, vocab_size)
        # A stop id alone is not taken for a bad word, as in transformers: the text could not end.
        bad_words = [ids for ids in params.bad_words_ids if len(ids) > 1 or ids[0] not in stop_ids]
        if bad_words:
            flat = chain.from_iterable((len(ids), *ids) for ids in bad_words)
            self._put(kernel.BAD_WORDS, np.fromiter(flat, np.int32))
            tail = np.full(max(map(len, bad_words)) - 1, -1, np.int32)
            known = prompt_ids[max(len(prompt_ids) - len(tail), 0) :]
            tail[len(tail) - len(known) :] = known
            self._put(kernel.TAIL, tail)
        fields = kernel.MIN_NEW_TOKENS, kernel.BIASED_SIZE, *_ADDRESSES_OF_MEMORY
        self.changes_scores = bool(self._record[list(fields)].any())

    def _put(self, field: int, array: NDArray[Any], *, with_size: bool = True) -> None:
        """Write the address of an array into the record, and its size behind it."""
        self._arrays.append(array)
        self._record[field] = array.ctypes.data
        if with_size:
            self._record[field + 1] = array.size

    def _put_table(self, field: int, vocab_size: int, ids: Sequence[int] = ()) -> None:
        """Begin to count ids: see `kernel_sampling.SEEN`."""
        table = np.zeros((2, vocab_size), np.int32)
        table[1] = np.bincount(np.asarray(ids, np.int64), minlength=vocab_size)
        seen = np.flatnonzero(table[1])
        table[0, : len(seen)] = seen
        self._put(field, table, with_size=False)
        self._record[field + 1] = len(seen)

    def remember(self, token_id: int) -> None:
        """Count an id as written before the next is chosen, if that makes a difference."""
        self._record[kernel.LAST] = token_id

    def draw(self) -> float:
        """The next number of its generator, from 0 up to, but not including, 1."""
        return self._generator.random()


class BatchSampler:
    """Chooses ids for many rows of scores at once.

    Args:
        vocab_size: How many scores a row has.
    """

    def __init__(self, vocab_size: int) -> None:
        self._ids = np.arange(vocab_size, dtype=np.int32)
        self._buffers = _buffers(1, vocab_size)

    def choose(
        self, samplers: Sequence[Sampler], logits: Rows, rows: Sequence[int]
    ) -> list[Choice | GenerationError]:
        """Choose the next id of each row; its sampler remembers it.

        Args:
            samplers: Of each row, all different.
            logits: The model's scores, float32 [any number, vocab_size]; left as they are.
            rows: Which of them to choose from, one for each sampler.

        Returns:
            For each row an id, with log-probabilities where they are wanted; or what is wrong: its
            scores are not numbers, or all ids are forbidden.
        """
        num_rows = len(rows)
        scores = self._room(num_rows).weights[:num_rows]
        np.take(logits, rows, axis=0, out=scores, mode="clip")
        changed = [index for index, sampler in enumerate(samplers) if sampler.changes_scores]
        if changed:
            records = [samplers[index].address for index in changed]
            kernel.process_rows(scores, np.array(changed, np.int64), np.array(records, np.int64))
        highest = scores.max(axis=1)
        chosen = self._draw(samplers, scores, highest)
        found: list[Choice | GenerationError] = [Choice(token_id) for token_id in chosen]
        for index in np.flatnonzero(~np.isfinite(highest)).tolist():
            found[index] = GenerationError(_why_none(float(highest[index])))
        for index in changed:
            if isinstance(found[index], Choice):
                samplers[index].remember(chosen[index])
        scored = [
            index
            for index, sampler in enumerate(samplers)
            if sampler.logprobs is not None and isinstance(found[index], Choice)
        ]
        if scored:
            choices = self.score(
                [chosen[index] for index in scored],
                logits[[rows[index] for index in scored]],
                [samplers[index].logprobs or 0 for index in scored],
            )
            for index, choice in zip(scored, choices, strict=True):
                found[index] = choice
        return found

    def _draw(self, samplers: Sequence[Sampler], scores: Rows, highest: Rows) -> list[int]:
        """Choose an id from each row of scores that has a finite highest.

        Args:
            samplers: Of each row.
            scores: The first rows of `weights`, which become weights.
            highest: float32 [rows].

        Returns:
            The id of each row; of a row that is not finite, any.
        """
        sharpen = np.array([sampler.sharpen for sampler in samplers])
        are_drawn = (sharpen > 0) & np.isfinite(highest)
        chosen: list[int] = [0] * len(samplers)
        if not are_drawn.all():
            chosen = scores.argmax(axis=1).tolist()
        drawn = np.flatnonzero(are_drawn)
        if not len(drawn):
            return chosen
        if len(drawn) < len(samplers):
            scores[: len(drawn)] = scores[drawn]
            scores, highest, sharpen = scores[: len(drawn)], highest[drawn], sharpen[drawn]
        drawing = [samplers[index] for index in drawn.tolist()]
        buffers = self._buffers
        buffers.ids[: len(drawing)] = self._ids
        buffers.counts[: len(drawing)] = len(self._ids)
        if any(sampler.top_k for sampler in drawing):
            top_k = np.array([sampler.top_k for sampler in drawing], np.int64)
            kernel.keep_top_k_rows(top_k, buffers)
        # What passes the largest float32 is as good as infinite.
        with np.errstate(over="ignore"):
            np.subtract(scores, highest[:, None], out=scores)
            np.multiply(scores, sharpen.astype(np.float32)[:, None], out=scores)
        np.exp(scores, out=scores)
        kernel.draw_rows(
            np.array([sampler.top_p for sampler in drawing], np.float64),
            np.array([sampler.min_p for sampler in drawing], np.float64),
            np.array([sampler.draw() for sampler in drawing]),
            buffers,
        )
        for index, token_id in zip(drawn, buffers.chosen[: len(drawn)].tolist(), strict=True):
            chosen[index] = token_id
        return chosen

    def score(
        self, token_ids: Sequence[int], logits: Rows, num_top: Sequence[int]
    ) -> list[Choice | GenerationError]:
        """Ids with log-probabilities of their own and of the likeliest ids.

        Args:
            token_ids: One of each row.
            logits: The model's scores, float32 [rows, vocab_size].
            num_top: How many of the likeliest, for each row.

        Returns:
            The ids as choices, or what is wrong with the scores.
        """
        found: list[Choice | GenerationError] = []
        for begin in range(0, len(token_ids), _ROWS_SCORED_AT_ONCE):
            part = slice(begin, begin + _ROWS_SCORED_AT_ONCE)
            found += self._score(token_ids[part], logits[part], np.array(num_top[part], np.int64))
        return found

    def _score(
        self, token_ids: Sequence[int], logits: Rows, num_top: NDArray[np.int64]
    ) -> list[Choice | GenerationError]:
        num_rows = len(token_ids)
        buffers = self._room(num_rows)
        all_highest, weights = logits.max(axis=1), buffers.weights[:num_rows]
        with np.errstate(over="ignore", invalid="ignore"):
            np.subtract(logits, all_highest[:, None], out=weights)
            np.exp(weights, out=weights)
        top = np.zeros((num_rows, int(num_top.max())), np.int32)
        kernel.sum_rows(logits, num_top, top, buffers)
        found: list[Choice | GenerationError] = []
        for row, token_id in enumerate(token_ids):
            highest = float(all_highest[row])
            if not math.isfinite(highest):
                found.append(GenerationError(_why_none(highest)))
                continue
            total = highest + math.log(float(buffers.sums[row]))
            ids = top[row, : num_top[row]]
            logprobs = logits[row, ids].astype(np.float64) - total
            pairs = zip(ids.tolist(), logprobs.tolist(), strict=True)
            found.append(Choice(token_id, float(logits[row, token_id]) - total, tuple(pairs)))
        return found

    def _room(self, num_rows: int) -> kernel.SamplingBuffers:
        if len(self._buffers.chosen) < num_rows:
            self._buffers = _buffers(num_rows, len(self._ids))
        return self._buffers


def _buffers(num_rows: int, vocab_size: int) -> kernel.SamplingBuffers:
    size = (num_rows, vocab_size)
    return kernel.SamplingBuffers(
        weights=aligned(size, np.float32),
        ids=np.empty(size, np.int32),
        counts=np.empty(num_rows, np.int64),
        sums=np.empty(num_rows, np.float32),
        chosen=np.zeros(num_rows, np.int64),
        keys=np.empty((2, vocab_size), np.uint32),
        places=np.empty((2, vocab_size), np.int32),
        numbers=np.empty(kernel.DIGITS, np.int32),
        blocks=np.empty((2, vocab_size), np.float32),
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
