"""A parallel for loop. Kernels hold no lock of Python's while they compute."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from queue import SimpleQueue
from typing import TypeAlias

__all__ = ["parallel_for"]

_Work: TypeAlias = Callable[[int, int], object]
_Queue: TypeAlias = SimpleQueue[tuple[Future[None], _Work, tuple[int, int]] | None]


def parallel_for(work: _Work, count: int, threads: int, *, multiple: int = 1) -> None:
    """Call `work(first, last)` for ranges that make up `range(count)`; return when all are done.

    Args:
        work: Called by the caller's thread and by others, with ranges that do not overlap.
        count: End of the whole range.
        threads: The number of ranges, at most.
        multiple: The length of every range but the last is a multiple of this.

    Raises:
        Exception: Whatever `work` raised; no call of it is running any more.
    """
    size = max(-(-count // threads // multiple) * multiple, multiple)
    ranges = [(first, min(first + size, count)) for first in range(0, count, size)]
    if len(ranges) < 2:
        work(0, count)
        return
    try:
        queue = _queue_of_helpers(os.getpid(), threads - 1)
    except RuntimeError:  # the system gives no more threads
        work(0, count)
        return
    jobs: list[Future[None]] = []
    try:
        for range_ in ranges[1:]:
            jobs.append(Future())
            queue.put((jobs[-1], work, range_))
        work(*ranges[0])
    finally:  # nobody writes to the arrays of a caller that has gone on
        for job in jobs:
            job.exception()
    for job in jobs:
        job.result()


@cache
def _queue_of_helpers(_: int, threads: int) -> _Queue:
    """Where threads of this process take work; a forked one starts its own.

    They are no ThreadPoolExecutor: Python shuts all of those down when the main thread has ended,
    while its other threads may still ask for texts.
    """
    queue: _Queue = SimpleQueue()
    try:
        for _ in range(threads):
            threading.Thread(target=_help, args=(queue,), name="kernels", daemon=True).start()
    except RuntimeError:
        for _ in range(threads):
            queue.put(None)  # those that were started end
        raise
    return queue


def _help(queue: _Queue) -> None:
    while job := queue.get():
        future, work, range_ = job
        try:
            work(*range_)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(None)
        del job, future, work  # and so the arrays, while nothing is to do
