"""Writing ids: many requests at once on one network. No strings here.

Nothing runs in the background. Whoever waits for an id does the work for all: reads a chunk of a
prompt that is long, then scores one token of each text, and gives every request what was chosen.
Others that wait meanwhile wait for that one, and find their id when it is done.

    waiting ──▶ a slot is free ──▶ reading its prompt ──▶ writing ──▶ finished
    (bounded)       (Slots)       (Network.read, score)   (score, Sampler)

A request's ids do not depend on the others: a token's scores do not (see `Network`), and every
request has a sampler of its own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Sequence

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.batch import groups_of
from gpt_neox_japanese.inference.drafting import PromptLookup
from gpt_neox_japanese.inference.network import CHUNK, MOST_ROWS, Network
from gpt_neox_japanese.inference.request import Request
from gpt_neox_japanese.inference.sampling import Sampler, SamplingOptions
from gpt_neox_japanese.inference.slots import Slots

__all__ = ["Engine"]

_MOST_CHUNKS = 4  # that are read at once while nobody else is waiting for a token


class Engine:
    """Continues sequences of ids with one network. Any thread may call it.

    Args:
        network: Scores the next id.
        stop_ids: Ids that end a sequence; they are not part of it.
        most_waiting: How many requests may wait for a slot.
        prompt_lookup: Guess several ids at once from what was written before. The ids stay the
            same; text that repeats itself is written faster, other text a little slower.
    """

    def __init__(
        self,
        network: Network,
        *,
        stop_ids: Collection[int],
        most_waiting: int = 1000,
        prompt_lookup: bool = False,
    ) -> None:
        self.network = network
        self._stop_ids = frozenset(stop_ids)
        self._most_waiting = most_waiting
        self._prompt_lookup = prompt_lookup
        self._slots = Slots(network)
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._changed = threading.Condition()
        self._is_working = False

    # ---- What users call ------------------------------------------------------------------------

    @property
    def description(self) -> str:
        """What runs, in one line."""
        return self.network.description

    def submit(
        self,
        prompt_ids: Sequence[int],
        *,
        max_new_tokens: int,
        options: SamplingOptions,
        seed: int | None = None,
    ) -> Request:
        """Begin a request. Its ids come by iterating over it.

        The sequence ends at a stop id, after `max_new_tokens`, or where the context is full.

        Args:
            prompt_ids: At least one id.
            max_new_tokens: How many ids to write at most.
            options: How each id is chosen.
            seed: The same seed gives the same ids; none gives new ones each time.

        Raises:
            GenerationError: The prompt is empty, too long, or holds an id that does not exist; an
                option is out of range; or too many requests are waiting.
        """
        self._check(prompt_ids, max_new_tokens)
        sampler = Sampler(
            options,
            vocab_size=self.network.shape.vocab_size,
            stop_ids=self._stop_ids,
            seed=seed,
            prompt_ids=prompt_ids,
        )
        most = min(max_new_tokens, self.network.capacity - len(prompt_ids))
        lookup = PromptLookup(prompt_ids, MOST_ROWS - 1) if self._prompt_lookup else None
        request = Request(self, prompt_ids, most, sampler, lookup)
        with self._changed:
            if len(self._waiting) >= self._most_waiting:
                raise GenerationError(
                    f"{len(self._waiting)} requests are waiting already; try again later, or make"
                    " the engine with a larger most_waiting"
                )
            self._waiting.append(request)
        return request

    def cancel(self, request: Request) -> None:
        """See `Request.cancel`."""
        with self._changed:
            request.finish("stop")
            request.drop()
            if request in self._waiting:
                self._waiting.remove(request)
            if not self._is_working:
                self._release()
            self._changed.notify_all()

    def work_for(self, request: Request) -> None:
        """Return when a request has an id ready or is finished; work, or wait for who works."""
        while True:
            with self._changed:
                while self._is_working and not request.is_ready:
                    self._changed.wait()
                if request.is_ready:
                    return
                self._is_working = True
            try:
                with self._changed:
                    self._admit()
                self._advance([each for each in self._running if not each.is_finished])
            except BaseException as error:
                self._abandon(error)
                raise
            finally:
                with self._changed:
                    self._release()
                    self._is_working = False
                    self._changed.notify_all()

    # ---- The work, done by one thread at a time --------------------------------------------------

    def _admit(self) -> None:
        """Give free slots to those who wait, the first first."""
        while self._waiting and len(self._slots):
            request = self._waiting.popleft()
            request.slot = self._slots.take(request.ids)
            self._running.append(request)

    def _advance(self, running: Sequence[Request]) -> None:
        """Bring every running request a step further, and one of those that read long prompts."""
        reading = [each for each in running if len(each.unread_prompt) >= CHUNK]
        if reading:
            self._read(reading[0], at_once=1 if reading[1:] or len(running) > 1 else _MOST_CHUNKS)
        for group in groups_of([each for each in running if each not in reading]):
            logits = self.network.score(group.tokens, group.unscored)
            for request, ids, scored in group.spans:
                request.take(ids, logits[:scored], self._stop_ids)
                logits = logits[scored:]

    def _read(self, request: Request, at_once: int) -> None:
        """Read the next chunks of a prompt, or take them from a slot that holds them."""
        assert request.slot is not None
        if request.done == 0:
            request.done = self._slots.share(request.slot, request.ids)
        count = min(len(request.unread_prompt) // CHUNK, at_once) * CHUNK
        if count:
            ids = request.unread_prompt[:count]
            self.network.read(ids, request.slot, request.done)
            self._slots.extend(request.slot, ids)
            request.done += count

    def _release(self) -> None:
        """Free the slots of those that have finished."""
        for request in [each for each in self._running if each.is_finished]:
            self._running.remove(request)
            assert request.slot is not None
            self._slots.give_back(request.slot)

    def _abandon(self, error: BaseException) -> None:
        """End everything that runs: how far an interrupted step came is not known."""
        for request in self._running:
            if not request.is_finished:
                request.error = GenerationError(
                    f"the step that was writing this text was interrupted ({error!r}); ask again"
                )
        self._running.clear()
        self._slots.forget()

    def _check(self, prompt_ids: Sequence[int], max_new_tokens: int) -> None:
        size, capacity = self.network.shape.vocab_size, self.network.capacity
        if max_new_tokens < 1:
            raise GenerationError(f"max_new_tokens is {max_new_tokens}; it must be 1 or more")
        if not prompt_ids:
            raise GenerationError("the prompt is empty; write at least one character")
        if len(prompt_ids) >= capacity:
            raise GenerationError(
                f"the prompt has {len(prompt_ids)} tokens, the model reads at most {capacity - 1}"
                " before it writes; shorten the prompt"
            )
        for token_id in prompt_ids:
            if not 0 <= token_id < size:
                raise GenerationError(f"the prompt holds id {token_id}; ids are 0 to {size - 1}")
