"""What each step of the network computes, and for whom.

    waiting ──▶ a slot is free ──▶ prefill of its prompt ──▶ decode ──▶ finished
                  (KVSlots)          (Network.prefill)      (Network.decode, BatchSampler)

One thread at a time runs a scheduler: the engine's loop. Nothing here is locked, and no signal
handler runs here; other threads only count those who run and wait.

The memory of keys and values is the network's (`cpu.network`, `torch.network`); `KVSlots` gives out
its slots, one to a text. A text ends here by a stop id, its length, or a cancel: stop strings are
found where ids become text (`detokenizer`, `text_stream`), whose reader then cancels the request.
After an `os.fork()` the child begins with a new scheduler and an empty cache (`engine`). Several
continuations of one prompt are several requests, which share its chunks by `KVSlots.reuse_prefix`.

Who gets how much of a step:

- Every text that is being written gets its next token in every step.
- Beside them one prompt is prefilled by a chunk, that of the request which came first; by more
  chunks only where nothing is being written. So a newcomer holds a written text up by one chunk
  a step, however long its prompt is and however many come.
- What remains of prompts, less than a chunk each, fills the rows that written texts leave in their
  last batch, or, if these are few, one batch more. So prompts are read in every step, however many
  texts are being written, and the first that came gets its first token first.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Sequence

from numpy import float32
from numpy.typing import NDArray

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.network import CHUNK, Network
from gpt_neox_japanese.inference.sampling.sampler import BatchSampler
from gpt_neox_japanese.inference.scheduler.batch import Span, batches_of
from gpt_neox_japanese.inference.scheduler.kv_slots import KVSlots
from gpt_neox_japanese.inference.scheduler.request import Request

__all__ = ["Scheduler"]

_MAX_CHUNKS = 4  # that are prefilled in one step while no other text is being written


class Scheduler:
    """Runs requests side by side on one network.

    A request's ids do not depend on the others: a token's scores do not (see `Network`), and every
    request has a sampler of its own.

    Args:
        network: Computes the steps.
        stop_ids: Ids that end a text; they are not part of it.
    """

    def __init__(self, network: Network, stop_ids: Collection[int]) -> None:
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self._network = network
        self._stop_ids = stop_ids
        self._slots = KVSlots(network)
        self._sampler = BatchSampler(network.hparams.vocab_size)

    def add(self, request: Request) -> None:
        """Let a request wait for a slot.

        Args:
            request: It runs when those before it have one.
        """
        self.waiting.append(request)

    def admit(self) -> bool:
        """Give free slots to those who wait, the first first, and drop those who were cancelled.

        Returns:
            Whether anything runs.
        """
        if any(request.cancelled for request in self.waiting):
            self.waiting = deque(each for each in self.waiting if not each.cancelled)
        while self.waiting and len(self._slots):
            request = self.waiting.popleft()
            self.running.append(request)  # first: whatever fails, its owner is told
            request.slot = self._slots.acquire(request.ids)
            request.started_at = time.monotonic()
        return bool(self.running)

    def step(self) -> None:
        """Bring every running request a step further, and one of those with a long prompt."""
        self._retire()
        long = [each for each in self.running if len(each.uncomputed_prompt) >= CHUNK]
        if long:
            self._prefill(long[0], max_chunks=1 if len(self.running) > 1 else _MAX_CHUNKS)
        short = [each for each in self.running if each not in long] if long else self.running
        for batch in batches_of(short, self._network.max_rows):
            logits = self._network.decode(batch.tokens, batch.num_without_logits)
            self._update(batch.spans, logits)
        self._retire()

    def fail(self, error: GenerationError, *, waiting: bool = False) -> None:
        """End everything that runs, after a step that failed: how far it came is not known.

        Args:
            error: What the owners are told.
            waiting: Whether what waits ends too.
        """
        for request in self.running:
            request.fail(error)
        self.running.clear()
        while waiting and self.waiting:
            self.waiting.popleft().fail(error)
        self._slots.clear()

    def _prefill(self, request: Request, max_chunks: int) -> None:
        """Compute the next chunks of a prompt, or take them from a slot that holds them."""
        slot, with_logits = request.slot, request.prompt_logprobs is not None
        assert slot is not None
        if request.num_computed == 0 and with_logits:  # a cache has no logits
            self._slots.forget(slot)
        elif request.num_computed == 0:
            request.num_cached = request.num_computed = self._slots.reuse_prefix(slot, request.ids)
        max_chunks = 1 if with_logits else max_chunks  # a row of logits is as long as a vocabulary
        count = min(len(request.uncomputed_prompt) // CHUNK, max_chunks) * CHUNK
        if count:
            ids = request.uncomputed_prompt[:count]
            logits = self._network.prefill(
                ids,
                slot,
                request.num_computed,
                is_wanted=lambda: not request.cancelled,
                with_logits=with_logits,
            )
            if logits is not None:
                self._slots.record(slot, ids)
                self._update([Span(request, ids, len(logits))], logits)

    def _update(self, spans: Sequence[Span], logits: NDArray[float32]) -> None:
        """Score prompts and choose ids with what was computed, as long as drafts are right.

        Args:
            spans: What was computed.
            logits: float32 [scored, vocabulary], of the tokens that are scored, span by span.
        """
        writing: list[tuple[Request, int, list[int]]] = []  # the row to choose from, and drafts
        drafted: list[tuple[Request, int]] = []
        row = 0
        for request, ids, num_scored in spans:
            num_of_prompt, drafts = request.read(ids, num_scored)
            if self._score_prompt(request, logits[row : row + num_of_prompt]):
                if num_scored > num_of_prompt:
                    writing.append((request, row + num_of_prompt, drafts))
                    drafted.append((request, len(drafts)))
                elif request.only_scores and not request.num_uncomputed:
                    request.finish("length")
            row += num_scored
        computed = {request: request.num_computed for request, _ in drafted}
        while writing:
            rows = [row for _, row, _ in writing]
            samplers = [request.sampler for request, _, _ in writing]
            choices = self._sampler.choose(samplers, logits, rows)
            right = []
            for (request, row, drafts), choice in zip(writing, choices, strict=True):
                if isinstance(choice, GenerationError):
                    request.fail(choice)
                elif request.append(choice, self._stop_ids) and drafts[:1] == [choice.id]:
                    request.num_computed += 1
                    right.append((request, row + 1, drafts[1:]))
            writing = right
        for request, num_drafts in drafted:
            if request.lookup is not None:
                request.lookup.learn(num_drafts, request.num_computed - computed[request])
            request.notify_of_choices()

    def _score_prompt(self, request: Request, logits: NDArray[float32]) -> bool:
        """Score the next ids of a prompt; False if the scores are no numbers."""
        first = len(request.prompt_choices) + 1
        ids = request.ids[first : first + len(logits)]
        num_top = [request.prompt_logprobs or 0] * len(ids)
        for choice in self._sampler.score(ids, logits, num_top):
            if isinstance(choice, GenerationError):
                request.fail(choice)
                return False
            request.prompt_choices.append(choice)
        return True

    def _retire(self) -> None:
        """Free the slots of those that have finished or were cancelled."""
        for request in list(self.running):
            if request.cancelled:
                request.finish("stop")
            if request.is_finished:
                self.running.remove(request)
                assert request.slot is not None
                self._slots.release(request.slot, request.ids[: request.num_computed])
