"""What the owner of a request holds: the ids as they are chosen."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.sampling.sampler import Choice
from gpt_neox_japanese.inference.scheduler.program_end import rest_if_program_ends
from gpt_neox_japanese.inference.scheduler.request import FinishReason, Request

__all__ = ["TokenStream"]

_MANY = 32


class TokenStream(Iterator[Choice], AsyncIterator[Choice]):
    """The ids that continue a prompt, as they are chosen, for `for` or for `async for`.

    The choices lie in a list that only grows, and what wakes the reader carries nothing. So an
    exception out of a signal handler, wherever it strikes, can lose no id and leaves nobody waiting
    for ever. The text is cancelled when nobody holds its stream any more.

    Args:
        request: Submitted to an engine after this is made.
        queue_position: Tells of a request which in the queue it is.
    """

    def __init__(self, request: Request, queue_position: Callable[[Request], int]) -> None:
        self._request = request
        self._queue_position = queue_position
        self._num_read = 0
        self._process = os.getpid()
        self._wake_up: SimpleQueue[None] = SimpleQueue()
        request.notify = partial(self._wake_up.put, None)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the text ended; None before. A cancelled text is stopped."""
        return "stop" if self._request.cancelled else self._request.finish_reason

    @property
    def context_is_full(self) -> bool:
        """Whether the text ended before `max_new_tokens` for lack of room."""
        return self._request.context_is_full

    @property
    def stop_choice(self) -> Choice | None:
        """The stop id that ended the text; None before, and where something else ended it."""
        return self._request.stop_choice

    @property
    def prompt_choices(self) -> Sequence[Choice]:
        """The prompt's ids but the first, each as if it had been chosen after those before it.

        Empty if `prompt_logprobs` was not asked for; complete before the first choice.
        """
        return self._request.prompt_choices

    @property
    def num_prompt_tokens(self) -> int:
        """How many ids the prompt has."""
        return self._request.num_prompt_tokens

    @property
    def num_cached_tokens(self) -> int:
        """How many of them were in the KV cache already, from another text that begins alike."""
        return self._request.num_cached

    @property
    def has_more(self) -> bool:
        """Whether the next choice, or the end, is there without waiting."""
        request = self._request
        return request.cancelled or request.is_finished or self._num_read < len(request.chosen)

    @property
    def has_ended(self) -> bool:
        """Whether nothing will be chosen any more; what was chosen may still be unread."""
        return self._request.cancelled or self._request.is_finished

    @property
    def started_at(self) -> float | None:
        """When it got a slot, as `time.monotonic` counts; None before."""
        return self._request.started_at

    @property
    def queue_position(self) -> int:
        """1 if it is the next to get a slot, and so on; 0 when it runs or has ended."""
        return self._queue_position(self._request)

    def __next__(self) -> Choice:
        """The next chosen id; waits for it.

        Raises:
            GenerationError: The model's scores cannot be used, the step failed, the engine was
                closed, or the stream belongs to another process.
        """
        while (choice := self._take()) is None:
            self._wake_up.get()
        return choice

    async def __anext__(self) -> Choice:
        """The next chosen id; the event loop does other work until it is there.

        Raises:
            GenerationError: As `__next__`.
        """
        try:
            choice = self._take()
        except StopIteration:
            raise StopAsyncIteration from None
        return await self._wait() if choice is None else choice

    async def _wait(self) -> Choice:
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        # Set before the list is looked at, so that nothing arrives unseen between the two.
        self._request.notify = partial(_notify, self._wake_up, _waker_of(loop), arrived)
        try:
            while (choice := self._take()) is None:
                await arrived.wait()
                arrived.clear()
        except StopIteration:
            raise StopAsyncIteration from None
        finally:  # an event loop is only woken for somebody who waits
            self._request.notify = partial(self._wake_up.put, None)
        return choice

    def wait_for_many(self) -> None:
        """Be woken less often: for a reader that wants the whole text and no part of it early."""
        self._request.notify_every = _MANY

    def notify_with(self, notify: Callable[[], object]) -> None:
        """Call somebody rather than wake a reader who waits: for those who look at `has_more`.

        Args:
            notify: Called by the engine's thread after choices and at the end, and by whoever
                cancels; it must be short.
        """
        self._request.notify = notify

    def check_process(self) -> None:
        """Refuse to be read by a forked process: the text is written in the one it came from.

        Raises:
            GenerationError: This is another process.
        """
        if self._process != os.getpid():
            raise GenerationError(
                f"this text is written in process {self._process}, which process"
                f" {os.getpid()} was forked from; begin it again in this one"
            )

    def cancel(self) -> None:
        """End the text now; what was chosen and not yet read is dropped. May be repeated."""
        self._request.cancelled = True
        self._request.notify()  # a reader in another thread may be waiting

    def __del__(self) -> None:
        self._request.cancelled = True

    def _take(self) -> Choice | None:
        """The next id if it is there; None if it has to be waited for."""
        request = self._request
        if request.cancelled:
            raise StopIteration
        self.check_process()
        finished = request.is_finished  # asked first: the last id comes before the end does
        if self._num_read < len(request.chosen):
            choice = request.chosen[self._num_read]
            self._num_read += 1
            return choice
        if finished:
            if request.error is not None:
                rest_if_program_ends()
                raise request.error
            raise StopIteration
        return None


def _notify(wake_up: SimpleQueue[None], waker: _Waker, arrived: asyncio.Event) -> None:
    wake_up.put(None)
    waker.wake(arrived)


class _Waker:
    """Wakes tasks of one event loop from another thread.

    To wake a loop takes a system call, and then the interpreter's lock. A step has news for many
    tasks at a time, for which the loop is woken once.

    Args:
        loop: The event loop, which is not kept alive.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._arrived: deque[asyncio.Event] = deque()
        self._is_told = False

    def wake(self, arrived: asyncio.Event) -> None:
        """Set an event soon. Any thread may call it."""
        self._arrived.append(arrived)
        loop = self._loop()
        if self._is_told or loop is None:
            return
        self._is_told = True
        try:
            loop.call_soon_threadsafe(self._set_all)
        except RuntimeError:  # a closed event loop has no readers
            self._arrived.clear()

    def _set_all(self) -> None:
        self._is_told = False  # first: whoever comes from now on tells the loop again
        while self._arrived:
            self._arrived.popleft().set()


_wakers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Waker] = weakref.WeakKeyDictionary()


def _waker_of(loop: asyncio.AbstractEventLoop) -> _Waker:
    waker = _wakers.get(loop)
    if waker is None:
        waker = _wakers[loop] = _Waker(loop)
    return waker
