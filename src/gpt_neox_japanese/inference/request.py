"""One text that an engine is writing: what its owner sees of it, and where the work stands."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from numpy import float32
from numpy.typing import NDArray

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.drafting import PromptLookup
from gpt_neox_japanese.inference.sampling import Choice, Sampler

if TYPE_CHECKING:
    from gpt_neox_japanese.inference.engine import Engine

__all__ = ["FinishReason", "Request"]

FinishReason: TypeAlias = Literal["stop", "length"]


class Request(Iterator[Choice]):
    """The ids that continue a prompt, one after the other as they are chosen.

    Attributes:
        finish_reason: "stop" after a stop id or `cancel`, "length" where there is no more room;
            None as long as it is being written, or after an error.
        error: Why it could not be finished, if so.
        ids: The prompt and what was chosen.
        done: How many of them the cache holds.
        slot: Where in the cache; None while it waits.
    """

    def __init__(
        self,
        engine: Engine,
        prompt_ids: Sequence[int],
        most: int,
        sampler: Sampler,
        lookup: PromptLookup | None,
    ) -> None:
        self.finish_reason: FinishReason | None = None
        self.error: GenerationError | None = None
        self.ids = list(prompt_ids)
        self.done = 0
        self.slot: int | None = None
        self._engine = engine
        self._end = len(self.ids) + most
        self._prompt_length = len(self.ids)
        self._sampler = sampler
        self._lookup = lookup
        self._ready: deque[Choice] = deque()

    # ---- The owner's side ------------------------------------------------------------------------

    def __next__(self) -> Choice:
        """The next chosen id; waits for it.

        Raises:
            GenerationError: The model's scores cannot be used, or the thread that worked for all
                was interrupted.
        """
        self._engine.work_for(self)
        if self._ready:
            return self._ready.popleft()
        if self.error is not None:
            raise self.error
        raise StopIteration

    def cancel(self) -> None:
        """End it now; its place is free for others, and what was not yet taken is gone."""
        self._engine.cancel(self)

    # ---- The engine's side -----------------------------------------------------------------------

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be chosen."""
        return self.finish_reason is not None or self.error is not None

    @property
    def is_ready(self) -> bool:
        """Whether the owner has something to take, or nothing to wait for."""
        return bool(self._ready) or self.is_finished

    @property
    def unread(self) -> int:
        """How many of its ids the cache does not hold; the last one never."""
        return len(self.ids) - self.done

    @property
    def unread_prompt(self) -> Sequence[int]:
        """What is to be read before the first id is chosen, without the last id of the prompt."""
        return self.ids[self.done : self._prompt_length - 1]

    def guess(self, room: int) -> list[int]:
        """Ids that may follow, at most `room`."""
        if self._lookup is None:
            return []
        return self._lookup.guess(min(room, self._end - len(self.ids) - 1))

    def take(
        self, read: Sequence[int], logits: NDArray[float32], stop_ids: Collection[int]
    ) -> None:
        """Take the scores of a step and choose ids, as long as guesses are right.

        Args:
            read: The ids that were read, the last ones guesses.
            logits: float32 `(scored, vocabulary)`, of the last `scored` of them.
            stop_ids: Ids that end the text.
        """
        guesses = read[len(read) - len(logits) + 1 :]
        self.done += len(read) - len(guesses)
        right = 0
        for row, guess in zip(logits, [*guesses, None], strict=False):
            if self.is_finished:
                break
            if not self._choose(row, stop_ids) or self.ids[-1] != guess:
                break
            right += 1
        self.done += right
        if self._lookup is not None:
            self._lookup.learn(len(guesses), right)

    def _choose(self, row: NDArray[float32], stop_ids: Collection[int]) -> bool:
        """Choose one id; False if the text ends here."""
        try:
            choice = self._sampler.choose(row)
        except GenerationError as error:
            self.error = error
            return False
        if choice.id in stop_ids:
            self.finish("stop")
            return False
        self.ids.append(choice.id)
        if self._lookup is not None:
            self._lookup.append(choice.id)
        self._ready.append(choice)
        if len(self.ids) == self._end:
            self.finish("length")
        return not self.is_finished

    def finish(self, reason: FinishReason) -> None:
        """End it, unless it has ended."""
        if not self.is_finished:
            self.finish_reason = reason

    def drop(self) -> None:
        """Forget what was chosen and not yet taken."""
        self._ready.clear()
