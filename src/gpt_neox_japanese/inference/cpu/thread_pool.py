"""The threads that run a compiled step together."""

from __future__ import annotations

import os
import threading
import time
import weakref
from contextlib import suppress

from gpt_neox_japanese.inference.cpu.kernel_decode import Workspace, begin_step, run_steps
from gpt_neox_japanese.inference.cpu.kernel_phases import GO

__all__ = ["ThreadPool"]

# About a millisecond: longer than what happens between two tokens, much shorter than a person's
# next question.
_SPINS_BEFORE_SLEEP = 32_000

_ALL_STEPS = 1 << 40
_SECONDS_BETWEEN_TRIES = 1.0  # to have threads where there were no more


class ThreadPool:
    """Runs steps of a workspace on as many threads as it was made for.

    The caller's thread is one of them, and only one thread at a time may call. A step is complete
    when its work is, wherever the other threads are: they spin for a moment until the next step
    begins, and then sleep. They end when the pool is closed or no longer used. A forked process
    starts threads of its own with its first step. Where too few can be had, those that there are,
    at least the caller's, do all the work.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._workers: _Workers | None = None

    def step(self) -> None:
        """Do what `workspace.batch` and `workspace.tokens` say."""
        if self._workers is None or not self._workers.are_of_this_process():
            self._workspace.counters[:] = 0
            self._workers = _Workers(self._workspace)
            weakref.finalize(self, self._workers.end)
        self._workers.start()
        self._workers.begin_step()
        # Which step it is stands in the shared counters alone: there is no second count that could
        # come to differ from it.
        run_steps(self._workspace, 0, int(self._workspace.counters[GO]) - 1, 1, -1)

    def close(self) -> None:
        """End the threads; the next step starts new ones."""
        if self._workers is not None:
            self._workers.end()
            self._workers.join()
            self._workers = None


class _Workers:
    """The other threads of a pool. They do not keep the pool itself alive."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._num_sleeping = 0
        self._ended = False
        self._threads: list[threading.Thread] = []
        self._num_missing = len(workspace.normed) - 1
        self._next_try = 0.0

    def start(self) -> None:
        """Start those that are missing, as far as the system, or a program that ends, gives any."""
        if not self._num_missing or time.monotonic() < self._next_try:
            return
        self._next_try = time.monotonic() + _SECONDS_BETWEEN_TRIES
        with suppress(RuntimeError):
            while self._num_missing:
                thread = threading.Thread(target=self._work, args=(self._num_missing,), daemon=True)
                thread.start()
                self._threads.append(thread)
                self._num_missing -= 1

    def are_of_this_process(self) -> bool:
        return self._process == os.getpid()

    def begin_step(self) -> None:
        # Under the lock, so that a worker either sees the step before it sleeps, or is woken.
        with self._changed:
            begin_step(self._workspace.counters, self._workspace.batch, len(self._workspace.layers))
            if self._num_sleeping:
                self._changed.notify_all()

    def end(self) -> None:
        if self.are_of_this_process():  # in a forked one the lock may be held by nobody
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def join(self) -> None:
        for thread in self._threads if self.are_of_this_process() else ():
            thread.join()

    def _work(self, thread_id: int) -> None:
        steps = 0
        while True:
            steps = run_steps(self._workspace, thread_id, steps, _ALL_STEPS, _SPINS_BEFORE_SLEEP)
            with self._changed:
                self._num_sleeping += 1
                while self._workspace.counters[GO] == steps and not self._ended:
                    self._changed.wait()
                self._num_sleeping -= 1
                if self._ended:
                    return
