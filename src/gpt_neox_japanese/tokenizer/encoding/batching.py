"""Cutting work for threads: compiled code leaves Python's lock to others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.machine import usable_cores
from gpt_neox_japanese.tokenizer.results import Ragged

__all__ = ["concatenate", "cut_between_lines", "cut_between_texts", "map_in_threads"]

_Result = TypeVar("_Result")

# Large enough that starting a task costs nothing beside it, small enough that all threads end
# at about the same time.
_CHARACTERS_PER_TASK = 2**18
_BYTES_PER_TASK = 2**20


def map_in_threads(
    function: Callable[[slice], _Result], tasks: Sequence[slice], num_threads: int | None
) -> list[_Result]:
    """Apply a function to every task.

    Args:
        function: Should spend its time in compiled code.
        tasks: Its arguments.
        num_threads: At most so many threads; one for each usable core if None.

    Returns:
        The results, in the order of the tasks.
    """
    num_threads = min(num_threads or usable_cores(), len(tasks)) if len(tasks) > 1 else 1
    if num_threads <= 1:
        return [function(task) for task in tasks]
    try:
        with ThreadPoolExecutor(num_threads) as pool:
            return list(pool.map(function, tasks))
    except RuntimeError:  # there are no threads to be had, nor any for a pool when main has ended
        return [function(task) for task in tasks]


def cut_between_texts(lengths: NDArray[np.int64]) -> list[slice]:
    """Runs of texts of about the same size.

    Args:
        lengths: int64 [texts], in characters.

    Returns:
        The numbers of the texts in each run.
    """
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.searchsorted(ends, np.arange(_CHARACTERS_PER_TASK, total, _CHARACTERS_PER_TASK)) + 1
    return _slices([0, *cuts.tolist(), len(lengths)])


def cut_between_lines(data: NDArray[np.uint8]) -> list[slice]:
    """Parts of a text that can be encoded on their own, because each but the last ends with LF.

    Args:
        data: uint8 [bytes].

    Returns:
        The places of the bytes of each part.
    """
    cuts = [0]
    while cuts[-1] < len(data):
        cut = cuts[-1] + _BYTES_PER_TASK
        while cut < len(data):
            breaks = np.flatnonzero(data[cut : cut + 2**14] == 0x0A)
            if len(breaks):
                cut += int(breaks[0]) + 1
                break
            cut += 2**14
        cuts.append(min(cut, len(data)))
    return _slices(cuts)


def concatenate(parts: Sequence[Ragged]) -> Ragged:
    """One ragged array of several.

    Args:
        parts: Ragged arrays.

    Returns:
        The rows of all of them, in order.
    """
    if len(parts) == 1:
        return parts[0]
    sizes = np.array([0, *(len(part.ids) for part in parts)], dtype=np.int64)
    bounds = [part.bounds[1:] + base for part, base in zip(parts, np.cumsum(sizes), strict=False)]
    return Ragged(
        np.concatenate([np.empty(0, dtype=np.int32), *(part.ids for part in parts)]),
        np.concatenate([np.zeros(1, dtype=np.int64), *bounds]),
    )


def _slices(cuts: list[int]) -> list[slice]:
    distinct = list(dict.fromkeys(cuts))
    return [slice(start, end) for start, end in pairwise(distinct)]
