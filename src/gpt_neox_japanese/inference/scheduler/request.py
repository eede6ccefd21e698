"""One text that the engine writes: its ids so far, and what is still to be computed for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal, TypeAlias

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.sampling.sampler import Choice, Sampler
from gpt_neox_japanese.inference.scheduler.prompt_lookup import PromptLookup

__all__ = ["FinishReason", "Request"]

FinishReason: TypeAlias = Literal["stop", "length"]


class Request:
    """What the engine knows of one text.

    Only the engine's loop changes it. Its owner reads `chosen`, `finish_reason` and `error`, and
    may set `cancelled` at any time; no lock is needed for that.

    Args:
        prompt_ids: At least one id.
        max_new_tokens: How many ids may be chosen; 0 where only the prompt's scores are wanted.
        room: How many there is room for in the context.
        sampler: Chooses them.
        lookup: Drafts ids; None for no drafts.
        prompt_logprobs: How many likeliest ids are kept beside each id of the prompt; None if the
            prompt is not scored.

    Attributes:
        ids: The prompt and what was chosen.
        chosen: The choices so far; it only grows.
        prompt_choices: The prompt's ids but the first, as if they had been chosen, where the prompt
            is scored: complete before the first choice.
        stop_choice: The stop id that ended the text, which is no part of it.
        num_prompt_tokens: How many of `ids` are the prompt's.
        num_computed: How many of `ids` the KV cache holds.
        num_cached: How many of them another text had left there.
        slot: Where in the KV cache; None while it waits.
        started_at: When it got its slot, as `time.monotonic` counts; None before.
        cancelled: Nobody wants the rest: the engine drops it before its next step.
        finish_reason: "stop" after a stop id or a cancel, "length" where there is no more room;
            None as long as it is being written, or after an error.
        error: Why it could not be finished, if so.
        sampler: As given; so are `lookup` and `prompt_logprobs`.
        only_scores: Whether nothing is to be chosen.
        notify: Called after choices and at the end, by the engine's loop.
        notify_every: So many choices lie between two calls: to wake a reader costs the loop time.
    """

    def __init__(
        self,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        room: int,
        sampler: Sampler,
        lookup: PromptLookup | None,
        prompt_logprobs: int | None = None,
    ) -> None:
        self.ids = list(prompt_ids)
        self.chosen: list[Choice] = []
        self.prompt_choices: list[Choice] = []
        self.stop_choice: Choice | None = None
        self.num_computed = 0
        self.num_cached = 0
        self.slot: int | None = None
        self.started_at: float | None = None
        self.cancelled = False
        self.finish_reason: FinishReason | None = None
        self.error: GenerationError | None = None
        self.notify: Callable[[], object] = lambda: None
        self.notify_every = 1
        self._num_notified = 0
        self.num_prompt_tokens = len(self.ids)
        self._max_new_tokens = max_new_tokens
        self._max_length = len(self.ids) + min(max_new_tokens, room)
        self.sampler = sampler
        self.lookup = lookup
        self.prompt_logprobs = prompt_logprobs
        # Whether nothing is to be chosen. Nobody asks then what follows the last id.
        self.only_scores = self._max_length == self.num_prompt_tokens

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be chosen."""
        return self.finish_reason is not None or self.error is not None

    @property
    def context_is_full(self) -> bool:
        """Whether it ended before `max_new_tokens` for lack of room."""
        return self.finish_reason == "length" and len(self.chosen) < self._max_new_tokens

    @property
    def num_uncomputed(self) -> int:
        """How many of its ids are to be computed for what is wanted next."""
        return len(self.ids) - self.only_scores - self.num_computed

    @property
    def uncomputed_prompt(self) -> list[int]:
        """What is to be prefilled before the first id is chosen, without the prompt's last id."""
        return self.ids[self.num_computed : self.num_prompt_tokens - 1]

    @property
    def is_writing(self) -> bool:
        """Whether its next step chooses an id from one token's logits."""
        return len(self.ids) - self.num_computed == 1 and not self.only_scores

    def draft(self, room: int) -> list[int]:
        """Ids that may follow, at most `room`.

        Args:
            room: 0 or more.

        Returns:
            The ids; none without prompt lookup, or near the end.
        """
        if self.lookup is None:
            return []
        return self.lookup.draft(min(room, self._max_length - len(self.ids) - 1))

    def read(self, ids: Sequence[int], num_scored: int) -> tuple[int, list[int]]:
        """Take note of what a step has computed.

        Args:
            ids: What follows those that were computed before; the last ones are drafts, which do
                not count as computed yet.
            num_scored: So many at the end have logits.

        Returns:
            How many of these rows of logits score the prompt; the drafts after the first row of the
            others, none where there is no such row.
        """
        first_scored = self.num_computed + len(ids) - num_scored
        num_of_prompt = min(max(self.num_prompt_tokens - 1 - first_scored, 0), num_scored)
        drafts = ids[len(ids) - (num_scored - num_of_prompt) + 1 :]
        self.num_computed += len(ids) - len(drafts)
        return num_of_prompt, list(drafts)

    def append(self, choice: Choice, stop_ids: Collection[int]) -> bool:
        """Take the next choice; False if the text ends here.

        Args:
            choice: What follows `ids`.
            stop_ids: Ids that end the text.
        """
        if choice.id in stop_ids:
            self.stop_choice = choice
            self.finish("stop")
            return False
        self.ids.append(choice.id)
        if self.lookup is not None:
            self.lookup.append(choice.id)
        self.chosen.append(choice)
        if len(self.ids) == self._max_length:
            self.finish("length")
            return False
        return True

    def notify_of_choices(self) -> None:
        """Wake the reader, if enough was chosen since it was woken last."""
        if len(self.chosen) - self._num_notified >= self.notify_every:
            self._num_notified = len(self.chosen)
            self.notify()

    def finish(self, reason: FinishReason) -> None:
        """End it, unless it has ended.

        Args:
            reason: Why.
        """
        if not self.is_finished:
            self.finish_reason = reason
            self.notify()

    def fail(self, error: GenerationError) -> None:
        """End it with an error, unless it has ended.

        Args:
            error: What its owner is told.
        """
        if not self.is_finished:
            self.error = error
            self.notify()
