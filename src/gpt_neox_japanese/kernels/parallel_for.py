"""A parallel for loop. Kernels hold no lock of Python's while they compute."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

__all__ = ["parallel_for"]


def parallel_for(
    work: Callable[[int, int], object], count: int, threads: int, *, multiple: int = 1
) -> None:
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
    jobs = [_pool(os.getpid(), threads - 1).submit(work, *range_) for range_ in ranges[1:]]
    try:
        work(*ranges[0])
    finally:  # nobody writes to the arrays of a caller that has gone on
        for job in jobs:
            job.exception()
    for job in jobs:
        job.result()


@cache
def _pool(_: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process: after a fork there are none, whatever the parent had."""
    return ThreadPoolExecutor(threads, thread_name_prefix="kernels")
