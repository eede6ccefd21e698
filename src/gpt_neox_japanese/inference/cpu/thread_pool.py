"""The threads that run a compiled step together."""

from __future__ import annotations

import os
import threading
import weakref

from gpt_neox_japanese.inference.cpu.kernel_decode import Workspace, begin_step, run_steps
from gpt_neox_japanese.inference.cpu.kernel_phases import GO

__all__ = ["ThreadPool"]

# About a millisecond: longer than what happens between two tokens, much shorter than a person's
# next question.
_SPINS_BEFORE_SLEEP = 32_000

_ALL_STEPS = 1 << 40


class ThreadPool:
    """Runs steps of a workspace on as many threads as it was made for.

    The caller's thread is one of them, and only one thread at a time may call. A step is complete
    when its work is, wherever the other threads are: they spin for a moment until the next step
    begins, and then sleep. They end when the pool is closed or no longer used. A forked process
    starts threads of its own with its first step. While no threads can be had, the caller's does
    all the work.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._workers: _Workers | None = None

    def step(self) -> None:
        """Do what `workspace.batch` and `workspace.tokens` say."""
        workers = self._workers
        if workers is None or not workers.are_of_this_process():
            workers = self._start()
        workers.begin_step()
        # Which step it is stands in the shared counters alone: there is no second count that could
        # come to differ from it.
        run_steps(self._workspace, 0, int(self._workspace.counters[GO]) - 1, 1, -1)

    def close(self) -> None:
        """End the threads; the next step starts new ones."""
        if self._workers is not None:
            self._workers.end()
            self._workers.join()
            self._workers = None

    def _start(self) -> _Workers:
        self._workers = None
        self._workspace.counters[:] = 0
        workers = _Workers(self._workspace)
        if workers.start():  # else the next step tries again
            weakref.finalize(self, workers.end)
            self._workers = workers
        return workers


class _Workers:
    """The other threads of a pool. They do not keep the pool itself alive."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._num_sleeping = 0
        self._ended = False
        self._threads = [
            threading.Thread(target=self._work, args=(thread_id,), daemon=True)
            for thread_id in range(1, len(workspace.normed))
        ]

    def start(self) -> bool:
        """Start all of them or, where the system or a program that ends gives too few, none."""
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError:
            self.end()
            self.join()
            return False
        return True

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
            if thread.ident is not None:  # it was started
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
