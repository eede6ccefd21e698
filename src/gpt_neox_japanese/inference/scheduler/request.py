"""One text that the engine writes: its ids so far, and what is still to be computed for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal, TypeAlias

from numpy import float32
from numpy.typing import NDArray

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.sampling.sampler import Choice, Sampler, with_logprobs
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
        self.num_prompt_tokens = len(self.ids)
        self._max_new_tokens = max_new_tokens
        self._max_length = len(self.ids) + min(max_new_tokens, room)
        self._sampler = sampler
        self._lookup = lookup
        self._prompt_logprobs = prompt_logprobs

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be chosen."""
        return self.finish_reason is not None or self.error is not None

    @property
    def context_is_full(self) -> bool:
        """Whether it ended before `max_new_tokens` for lack of room."""
        return self.finish_reason == "length" and len(self.chosen) < self._max_new_tokens

    @property
    def scores_prompt(self) -> bool:
        """Whether the logits of the prompt's own tokens are wanted."""
        return self._prompt_logprobs is not None

    @property
    def num_uncomputed(self) -> int:
        """How many of its ids are to be computed for what is wanted next."""
        # Nobody asks what follows the last id of a prompt that is only scored.
        return len(self.ids) - self._only_scores - self.num_computed

    @property
    def uncomputed_prompt(self) -> Sequence[int]:
        """What is to be prefilled before the first id is chosen, without the prompt's last id."""
        return self.ids[self.num_computed : self.num_prompt_tokens - 1]

    @property
    def is_writing(self) -> bool:
        """Whether its next step chooses an id from one token's logits."""
        return self.num_uncomputed == 1 and not self._only_scores

    @property
    def _only_scores(self) -> bool:
        """Whether nothing is to be chosen."""
        return self._max_length == self.num_prompt_tokens

    def draft(self, room: int) -> list[int]:
        """Ids that may follow, at most `room`.

        Args:
            room: 0 or more.

        Returns:
            The ids; none without prompt lookup, or near the end.
        """
        if self._lookup is None:
            return []
        return self._lookup.draft(min(room, self._max_length - len(self.ids) - 1))

    def update(
        self, computed: Sequence[int], logits: NDArray[float32], stop_ids: Collection[int]
    ) -> None:
        """Take what a step computed, and choose ids as long as drafts are right.

        Args:
            computed: The ids that the step read, the last ones drafts.
            logits: float32 [scored, vocabulary], of the last `scored` of them.
            stop_ids: Ids that end the text.
        """
        first_scored = self.num_computed + len(computed) - len(logits)
        num_of_prompt = max(self.num_prompt_tokens - 1 - first_scored, 0)
        if not self._score_prompt(logits[:num_of_prompt]):
            return
        logits = logits[num_of_prompt:]
        drafts = computed[len(computed) - len(logits) + 1 :]
        self.num_computed += len(computed) - len(drafts)
        if self._only_scores and not self.num_uncomputed:
            self.finish("length")
        right = 0
        for row, draft in zip(logits, [*drafts, None], strict=False):
            if not self._choose(row, stop_ids) or self.ids[-1] != draft:
                break
            right += 1
        self.num_computed += right
        if self._lookup is not None:
            self._lookup.learn(len(drafts), right)

    def _score_prompt(self, logits: NDArray[float32]) -> bool:
        """Score the next ids of the prompt; False if the scores are no numbers."""
        for row in logits:
            token_id = self.ids[len(self.prompt_choices) + 1]
            try:
                choice = with_logprobs(token_id, row, self._prompt_logprobs or 0)
            except GenerationError as error:
                self.fail(error)
                return False
            self.prompt_choices.append(choice)
        return True

    def _choose(self, row: NDArray[float32], stop_ids: Collection[int]) -> bool:
        """Choose one id; False if the text ends here."""
        try:
            choice = self._sampler.choose(row)
        except GenerationError as error:
            self.fail(error)
            return False
        if choice.id in stop_ids:
            self.stop_choice = choice
            self.finish("stop")
            return False
        self.ids.append(choice.id)
        if self._lookup is not None:
            self._lookup.append(choice.id)
        self.chosen.append(choice)
        if len(self.ids) == self._max_length:
            self.finish("length")
        elif len(self.chosen) % self.notify_every == 0:
            self.notify()
        return not self.is_finished

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
