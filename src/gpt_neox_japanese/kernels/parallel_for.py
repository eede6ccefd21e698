"""Sharing work out to threads. Kernels hold no lock of Python's while they compute."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

__all__ = ["parallel_for"]


def parallel_for(
    work: Callable[[int, int], object], count: int, threads: int, *, multiple: int = 1
) -> None:
    """Call `work(first, last)` for shares of `count` things, and return when all are done.

    Args:
        work: Called by the caller's thread and by others, with shares that do not overlap.
        count: How many things there are.
        threads: How many shares are made, at most.
        multiple: A share has a multiple of so many things, unless it is the last.
    """
    size = max(-(-count // threads // multiple) * multiple, multiple)
    shares = [(first, min(first + size, count)) for first in range(0, count, size)]
    if len(shares) < 2:
        work(0, count)
        return
    jobs = [_pool(os.getpid(), threads - 1).submit(work, *share) for share in shares[1:]]
    try:
        work(*shares[0])
    finally:  # nobody writes to the arrays of a caller that has gone on
        for job in jobs:
            job.exception()
    for job in jobs:
        job.result()


@cache
def _pool(_: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process: after a fork there are none, whatever the parent had."""
    return ThreadPoolExecutor(threads, thread_name_prefix="kernels")
