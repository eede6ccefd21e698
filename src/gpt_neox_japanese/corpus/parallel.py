"""A function applied to every block of a corpus, on all cores, with the results in order."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from gpt_neox_japanese.corpus.blocks import Block

__all__ = ["map_blocks"]

Result = TypeVar("Result")

_MAX_WORKERS_ON_WINDOWS = 61  # it waits for so many processes at once, and Python for no more


def map_blocks(
    function: Callable[[Block], Result], blocks: Iterable[Block], workers: int
) -> Iterator[tuple[Block, Result]]:
    """Every block with what `function` makes of it, in the blocks' order.

    Only a few blocks and results a worker are in memory at a time.

    Args:
        function: With more than one worker it is pickled, and so are its results.
        blocks: Read as the work goes on.
        workers: Number of processes at most; with 1 the work is done in this one.

    Yields:
        A block, and what `function` made of it.

    Raises:
        ChildProcessError: The system ended a worker.
    """
    if sys.platform == "win32":
        workers = min(workers, _MAX_WORKERS_ON_WINDOWS)
    if workers == 1:
        for block in blocks:
            yield block, function(block)
        return
    # spawn, because the numeric libraries' threads do not survive a fork.
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_start_worker, initargs=(function,)
    ) as pool:
        pending: deque[tuple[Block, Future[Result]]] = deque()
        try:
            for block in blocks:
                pending.append((block, pool.submit(_work, block)))
                # A short queue keeps all workers busy without reading the whole corpus ahead.
                if len(pending) > 3 * workers:
                    block, future = pending.popleft()
                    yield block, future.result()
            while pending:
                block, future = pending.popleft()
                yield block, future.result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                f"one of {workers} workers was ended by the system, most likely for want of "
                "memory; use fewer --workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


_function: Callable[[Block], Any]


def _start_worker(function: Callable[[Block], Any]) -> None:
    global _function
    _function = function
    # Ctrl-C reaches all processes of a terminal; the parent is the one that knows what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # When the parent is killed nobody closes the queue, and the worker would wait forever.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(block: Block) -> Any:
    return _function(block)
