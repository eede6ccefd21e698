"""Writing ids: many requests at once on one network. No strings here.

While there is work, a thread of the engine's own, its loop, runs one step after the other. Readers
only wait for ids. That is what makes an interrupt harmless: Python runs signal handlers in the main
thread alone, so no exception of theirs can strike between the halves of a step. The thread ends
when there is nothing to do.

There is no lock. A signal handler may itself ask for a text and wait for it, and a lock that its
thread held just then would stop the loop for ever. Queues whose single operations are atomic do: a
deque of those who wait, and a queue that holds one token while no loop runs.

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
from queue import Empty, SimpleQueue

from gpt_neox_japanese.checks import check_ids, check_integer
from gpt_neox_japanese.errors import GenerationError, QueueFullError
from gpt_neox_japanese.inference.network import Network
from gpt_neox_japanese.inference.sampling.sampler import Sampler, SamplingParams
from gpt_neox_japanese.inference.scheduler import MAX_WAITING
from gpt_neox_japanese.inference.scheduler.program_end import (
    note_that_program_ends,
    rest_if_program_ends,
)
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
        max_waiting: How many requests may wait for a slot, beside those that free slots will take.
        prompt_lookup: Draft several ids at once from what was written before. The ids stay the
            same; text that repeats itself is written faster, other text a little slower.
    """

    def __init__(
        self,
        network: Network,
        *,
        stop_ids: Collection[int],
        max_waiting: int = MAX_WAITING,
        prompt_lookup: bool = False,
    ) -> None:
        check_integer("max_waiting", max_waiting, GenerationError, minimum=1)
        self.network = network
        _claim(network, self)
        self._stop_ids = frozenset(stop_ids)
        self._max_waiting = max_waiting
        self._prompt_lookup = prompt_lookup
        self._closed = False
        self._start_afresh()

    def _start_afresh(self) -> None:
        """Forget every request, and trust nothing of what lies in the KV cache."""
        self._arrived: deque[Request] = deque()
        self._scheduler = Scheduler(self.network, self._stop_ids)
        # Whoever takes the token is the loop.
        self._token: SimpleQueue[None] = SimpleQueue()
        self._token.put(None)

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
        prompt_logprobs: int | None = None,
    ) -> TokenStream:
        """Begin a request. Its ids come by iterating over what is returned.

        The sequence ends at a stop id, after `max_new_tokens`, or where the context is full.

        Args:
            prompt_ids: At least one id.
            max_new_tokens: How many ids to write at most; 0 for the prompt's scores alone.
            params: How each id is chosen.
            seed: The same seed gives the same ids; none gives new ones each time.
            prompt_logprobs: Score the prompt's own ids, each beside so many of the likeliest (see
                `TokenStream.prompt_choices`); None does not. What other texts left in the cache is
                not used then, for it holds no logits.

        Returns:
            The stream of ids, to iterate over.

        Raises:
            GenerationError: The prompt is empty, too long, or holds an id that does not exist; an
                option is out of range; or the engine is closed.
            QueueFullError: Too many requests are waiting.
        """
        max_new_tokens = check_integer("max_new_tokens", max_new_tokens, GenerationError, minimum=0)
        ids = self.check_prompt(prompt_ids, max_new_tokens)
        if prompt_logprobs is not None:
            prompt_logprobs = check_integer(
                "prompt_logprobs",
                prompt_logprobs,
                GenerationError,
                minimum=0,
                maximum=self.network.hparams.vocab_size,
            )
        sampler = Sampler(
            params,
            vocab_size=self.network.hparams.vocab_size,
            stop_ids=self._stop_ids,
            seed=seed,
            prompt_ids=ids,
        )
        room = self.network.capacity - len(ids)
        lookup = PromptLookup(ids) if self._prompt_lookup else None
        request = Request(ids, max_new_tokens, room, sampler, lookup, prompt_logprobs)
        stream = TokenStream(request, self._queue_position)
        if max_new_tokens == 0 and (prompt_logprobs is None or len(ids) == 1):
            request.finish("length")  # the first id has no score
        else:
            self._wait_for_slot(request)
        return stream

    @property
    def num_running(self) -> int:
        """How many texts are being written or their prompts read."""
        return len(self._scheduler.running)

    @property
    def num_waiting(self) -> int:
        """How many requests wait for a slot."""
        return len(self._waiting())

    def close(self) -> None:
        """End all texts and the engine's threads, and take no more requests. May be repeated.

        A step that is being computed ends first.
        """
        self._close(timeout=None)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- The loop --------------------------------------------------------------------------------

    def _wait_for_slot(self, request: Request) -> None:
        """Put a request into the queue, and see to it that a loop runs."""
        self._check_open()
        # Whoever gets a slot with the next step does not wait.
        num_free = max(self.network.slots - self.num_running, 0)
        if len(self._scheduler.waiting) + len(self._arrived) >= self._max_waiting + num_free:
            waiting = self.num_waiting - num_free
            if waiting >= self._max_waiting:
                raise QueueFullError(f"{waiting} requests are waiting already; try again later")
        self._arrived.append(request)
        try:
            self._check_open()  # it may have been closed since
            if self._token.qsize():
                self._start_loop()
        except GenerationError:
            request.cancelled = True
            raise

    def _waiting(self) -> list[Request]:
        """Who waits for a slot, the first first."""
        # In this order nobody is missed who goes from one queue to the other just now: for a moment
        # it is in both.
        arrived, waiting = self._arrived.copy(), self._scheduler.waiting.copy()
        return [each for each in dict.fromkeys([*waiting, *arrived]) if not each.cancelled]

    def _queue_position(self, request: Request) -> int:
        """1 for the next that will get a slot, 0 for one that has it or needs none any more."""
        if request.slot is not None or request.is_finished or request.cancelled:
            return 0
        waiting = self._waiting()
        return waiting.index(request) + 1 if request in waiting else 0

    def _check_open(self) -> None:
        if self._closed:
            rest_if_program_ends()
            raise _closed_error()

    def _start_loop(self) -> None:
        try:
            threading.Thread(target=self._run, name="neox-ja engine", daemon=True).start()
        except RuntimeError as error:
            main = threading.main_thread()
            if main.is_alive() or main is threading.current_thread():
                raise GenerationError(
                    f"the engine cannot run: {error}; end some threads"
                ) from error
            # From 3.12 on Python starts no thread any more when the main one has ended. Signal
            # handlers run there even then, so that this thread will do.
            self._run()

    def _run(self) -> None:
        """Run steps until there is nothing to do, unless another thread does so already."""
        while self._arrived and not self._closed and self._take_token(timeout=0):
            while True:
                try:
                    if not self._has_work():
                        break
                    self._scheduler.step()
                except BaseException as error:  # nobody is told but those who wait
                    self._scheduler.fail(
                        GenerationError(
                            "the step that was writing this text failed"
                            f" ({type(error).__name__}: {error}); ask again"
                        )
                    )
            self._token.put(None)
            # Who came before the token was back started no thread: the queue is looked at again.

    def _take_token(self, timeout: float | None) -> bool:
        try:
            self._token.get(timeout=timeout) if timeout != 0 else self._token.get_nowait()
        except Empty:
            return False
        return True

    def _has_work(self) -> bool:
        self._queue_arrived()
        return not self._closed and self._scheduler.admit()

    def _queue_arrived(self) -> None:
        while self._arrived:
            self._scheduler.add(self._arrived[0])  # first: `_waiting` never misses it
            self._arrived.popleft()

    def _close(self, timeout: float | None) -> None:
        """See `close`; a step that takes longer than `timeout` seconds is left to itself."""
        self._closed = True
        if self._take_token(timeout):
            self._queue_arrived()
            self._scheduler.fail(_closed_error(), waiting=True)
            self.network.close()
            self._token.put(None)

    # ---- Checks ----------------------------------------------------------------------------------

    def check_prompt(self, prompt_ids: Sequence[int], max_new_tokens: int) -> list[int]:
        """Refuse a prompt that `submit` would refuse.

        Args:
            prompt_ids: Any object.
            max_new_tokens: How many ids are to follow at most.

        Returns:
            The ids as Python's integers.

        Raises:
            GenerationError: The prompt is empty, too long, or holds an id that does not exist.
        """
        size, capacity = self.network.hparams.vocab_size, self.network.capacity
        writes = max_new_tokens > 0
        ids = check_ids("the prompt", prompt_ids, GenerationError, size)
        if not ids:
            raise GenerationError("the prompt is empty; write at least one character")
        if len(ids) > capacity - writes:
            raise GenerationError(
                f"the prompt has {len(ids)} tokens, the model reads at most {capacity - writes}"
                f"{' before it writes' * writes}; shorten the prompt"
            )
        return ids


def _closed_error() -> GenerationError:
    return GenerationError("the engine is closed; make another one")


# ---- Which engines there are: for networks, forks, and the end of the program --------------------

_engines: dict[int, weakref.ref[Engine]] = {}


def _living() -> list[Engine]:
    return [engine for each in list(_engines.values()) if (engine := each()) is not None]


def _claim(network: Network, engine: Engine) -> None:
    """Two schedulers would each give out all slots of one KV cache."""
    if any(other.network is network and not other._closed for other in _living()):
        raise GenerationError("another engine runs this network; use that one, or close it")
    key = id(engine)
    _engines[key] = weakref.ref(engine, lambda _: _engines.pop(key, None))


def _start_all_afresh() -> None:
    """In the child of a fork, where no other thread lives."""
    for engine in _living():
        engine._start_afresh()


def _end_all() -> None:
    """Let the last steps end, so that no thread computes while Python takes itself apart."""
    note_that_program_ends()
    for engine in _living():
        engine._close(timeout=_SECONDS_FOR_LAST_STEP)


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_start_all_afresh)
