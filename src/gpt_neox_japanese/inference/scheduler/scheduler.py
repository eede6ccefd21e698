"""What each step of the network computes, and for whom.

    waiting ──▶ a slot is free ──▶ prefill of its prompt ──▶ decode ──▶ finished
                  (KVSlots)          (Network.prefill)      (Network.decode, Sampler)

One thread at a time runs a scheduler: the engine's loop. Nothing here is locked, and no signal
handler runs here; other threads only count those who run and wait.

The memory of keys and values is the network's (`cpu.network`, `torch.network`); `KVSlots` gives out
its slots, one to a text. A text ends here by a stop id, its length, or a cancel: stop strings are
found where ids become text (`detokenizer`, `text_stream`), whose reader then cancels the request.
After an `os.fork()` the child begins with a new scheduler and an empty cache (`engine`). Several
continuations of one prompt are several requests, which share its chunks by `KVSlots.reuse_prefix`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Sequence

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.network import CHUNK, Network
from gpt_neox_japanese.inference.scheduler.batch import batches_of
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
        for group in batches_of([each for each in self.running if each not in long]):
            logits = self._network.decode(group.tokens, group.num_without_logits)
            for request, ids, scored in group.spans:
                request.update(ids, logits[:scored], self._stop_ids)
                logits = logits[scored:]
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
        slot, with_logits = request.slot, request.scores_prompt
        assert slot is not None
        if request.num_computed == 0 and with_logits:  # a cache has no logits
            self._slots.forget(slot)
        elif request.num_computed == 0:
            request.num_cached = request.num_computed = self._slots.reuse_prefix(slot, request.ids)
        max_chunks = 1 if with_logits else max_chunks  # a row of logits is as long as a vocabulary
        count = min(len(request.uncomputed_prompt) // CHUNK, max_chunks) * CHUNK
        if count:
            ids: Sequence[int] = request.uncomputed_prompt[:count]
            logits = self._network.prefill(
                ids,
                slot,
                request.num_computed,
                is_wanted=lambda: not request.cancelled,
                with_logits=with_logits,
            )
            if logits is not None:
                self._slots.record(slot, ids)
                request.update(ids, logits, self._stop_ids)

    def _retire(self) -> None:
        """Free the slots of those that have finished or were cancelled."""
        for request in list(self.running):
            if request.cancelled:
                request.finish("stop")
            if request.is_finished:
                self.running.remove(request)
                assert request.slot is not None
                self._slots.release(request.slot, request.ids[: request.num_computed])
