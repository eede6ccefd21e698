"""Writing ids: many requests at once on one network. No strings here.

While there is work, a thread of the engine's own, its loop, runs one step after the other. Readers
only wait for ids. That is what makes an interrupt harmless: Python runs signal handlers in the main
thread alone, so no exception of theirs can strike between the halves of a step. The thread ends
when there is nothing to do.

After `os.fork()` the child has no loop and does not know what a step was doing to the KV cache: it
begins with an empty one.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections import deque
from collections.abc import Collection, Sequence

from gpt_neox_japanese.checks import check_ids, check_integer
from gpt_neox_japanese.errors import GenerationError, QueueFullError
from gpt_neox_japanese.inference.network import MAX_ROWS, Network
from gpt_neox_japanese.inference.sampling.sampler import Sampler, SamplingParams
from gpt_neox_japanese.inference.scheduler.prompt_lookup import PromptLookup
from gpt_neox_japanese.inference.scheduler.request import Request
from gpt_neox_japanese.inference.scheduler.scheduler import Scheduler
from gpt_neox_japanese.inference.scheduler.token_stream import TokenStream

__all__ = ["Engine"]

_SECONDS_FOR_LAST_STEP = 2.0  # which a program that ends waits for


class Engine:
    """Continues sequences of ids with one network. Any thread may call it.

    Args:
        network: Scores the next id.
        stop_ids: Ids that end a sequence; they are not part of it.
        max_waiting: How many requests may wait for a slot.
        prompt_lookup: Draft several ids at once from what was written before. The ids stay the
            same; text that repeats itself is written faster, other text a little slower.
    """

    def __init__(
        self,
        network: Network,
        *,
        stop_ids: Collection[int],
        max_waiting: int = 1000,
        prompt_lookup: bool = False,
    ) -> None:
        check_integer("max_waiting", max_waiting, GenerationError, minimum=0)
        self.network = network
        _claim(network, self)
        self._stop_ids = frozenset(stop_ids)
        self._max_waiting = max_waiting
        self._prompt_lookup = prompt_lookup
        self._closed = False
        self._start_afresh()

    def _start_afresh(self) -> None:
        """Forget every request, and trust nothing of what lies in the KV cache."""
        # No Condition: an interrupt could leave it held. Reentrant: a signal handler may submit
        # while its thread does.
        self._lock = threading.RLock()
        self._waiting: deque[Request] = deque()
        self._scheduler = Scheduler(self.network, self._stop_ids)
        self._loop: threading.Thread | None = None

    @property
    def description(self) -> str:
        """What runs, in one line."""
        return self.network.description

    def submit(
        self,
        prompt_ids: Sequence[int],
        *,
        max_new_tokens: int,
        params: SamplingParams,
        seed: int | None = None,
    ) -> TokenStream:
        """Begin a request. Its ids come by iterating over what is returned.

        The sequence ends at a stop id, after `max_new_tokens`, or where the context is full.

        Args:
            prompt_ids: At least one id.
            max_new_tokens: How many ids to write at most.
            params: How each id is chosen.
            seed: The same seed gives the same ids; none gives new ones each time.

        Raises:
            GenerationError: The prompt is empty, too long, or holds an id that does not exist; an
                option is out of range; or the engine is closed.
            QueueFullError: Too many requests are waiting.
        """
        ids = self._checked(prompt_ids)
        check_integer("max_new_tokens", max_new_tokens, GenerationError, minimum=1)
        sampler = Sampler(
            params,
            vocab_size=self.network.hparams.vocab_size,
            stop_ids=self._stop_ids,
            seed=seed,
            prompt_ids=ids,
        )
        room = self.network.capacity - len(ids)
        lookup = PromptLookup(ids, MAX_ROWS - 1) if self._prompt_lookup else None
        request = Request(ids, max_new_tokens, room, sampler, lookup)
        stream = TokenStream(request)
        with self._lock:
            self._refuse_if_closed()
            if len(self._waiting) >= self._max_waiting:
                self._waiting = deque(each for each in self._waiting if not each.cancelled)
            if len(self._waiting) >= self._max_waiting:
                raise QueueFullError(
                    f"{len(self._waiting)} requests are waiting already; try again later"
                )
            self._waiting.append(request)
            if self._loop is None:
                self._start_loop()
        return stream

    def close(self) -> None:
        """End all texts and the engine's threads, and take no more requests. May be repeated.

        A step that is being computed ends first.
        """
        with self._lock:
            self._closed = True
            loop = self._loop
        if loop is None:
            self._end()
        elif loop is not threading.current_thread():
            loop.join()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- The loop --------------------------------------------------------------------------------

    def _start_loop(self) -> None:
        try:
            threading.Thread(target=self._run, name="neox-ja engine", daemon=True).start()
        except RuntimeError as error:
            self._waiting.pop()
            raise GenerationError(f"the engine cannot run: {error}; end other threads") from error

    def _run(self) -> None:
        """Run steps until there is nothing to do, unless another thread does so already."""
        this_thread = threading.current_thread()
        with self._lock:
            if self._loop is not None:
                return
            self._loop = this_thread
        while True:
            try:
                if not self._has_work():
                    break
                self._scheduler.step()
            except BaseException as error:  # a thread has nobody to raise it to but those who wait
                self._scheduler.fail(
                    GenerationError(
                        "the step that was writing this text failed"
                        f" ({type(error).__name__}: {error}); ask again"
                    )
                )
        if self._closed:
            self._end()

    def _has_work(self) -> bool:
        """Admit those who wait, the first first, to free slots; False where the loop may end."""
        with self._lock:
            while self._waiting and self._scheduler.has_free_slot and not self._closed:
                request = self._waiting.popleft()
                if not request.cancelled:
                    self._scheduler.admit(request)
            if self._scheduler.running and not self._closed:
                return True
            self._loop = None
            return False

    def _end(self) -> None:
        """Tell everybody who waits that the engine is closed; end the network's threads."""
        error = GenerationError("the engine is closed; make another one")
        with self._lock:
            for request in self._waiting:
                request.fail(error)
            self._waiting.clear()
            self._scheduler.fail(error)
        self.network.close()

    # ---- Checks ----------------------------------------------------------------------------------

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise GenerationError("the engine is closed; make another one")

    def _checked(self, prompt_ids: Sequence[int]) -> list[int]:
        """The ids of a prompt as Python's integers."""
        size, capacity = self.network.hparams.vocab_size, self.network.capacity
        ids = check_ids("the prompt", prompt_ids, GenerationError, size)
        if not ids:
            raise GenerationError("the prompt is empty; write at least one character")
        if len(ids) >= capacity:
            raise GenerationError(
                f"the prompt has {len(ids)} tokens, the model reads at most {capacity - 1}"
                " before it writes; shorten the prompt"
            )
        return ids


# ---- Which engines there are: for networks, forks, and the end of the program --------------------

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_engines_lock = threading.RLock()


def _claim(network: Network, engine: Engine) -> None:
    """Two schedulers would each give out all slots of one KV cache."""
    with _engines_lock:
        for other in _engines:
            if other.network is network and not other._closed:
                raise GenerationError("another engine runs this network; use that one, or close it")
        _engines.add(engine)


def _start_all_afresh() -> None:
    """In the child of a fork, where no other thread lives, and nobody gives a lock back."""
    global _engines_lock
    _engines_lock = threading.RLock()
    for engine in list(_engines):
        engine._start_afresh()


def _end_all() -> None:
    """Let the last steps end, so that no thread computes while Python takes itself apart."""
    with _engines_lock:
        engines = list(_engines)
    for engine in engines:
        with engine._lock:
            engine._closed = True
            loop = engine._loop
        if loop is not None:
            loop.join(_SECONDS_FOR_LAST_STEP)


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_start_all_afresh)
