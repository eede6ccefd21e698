"""Which ids may be chosen, and the draw among them, on one row. Pure functions on NumPy arrays.

They run once for every token that is written, so none of them sorts the whole vocabulary. Each
gives the positions it keeps, in ascending order, instead of a row with gaps: what follows works on
few numbers.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["draw", "keep_min_p", "keep_top_k", "keep_top_p", "likeliest"]

Row: TypeAlias = NDArray[np.float32]
Positions: TypeAlias = NDArray[np.intp]

# What share of the likeliest's weight is tried first in `keep_top_p`.
_LIKELY = 1e-3

# A running sum depends on itself at every step and is the slowest pass over a row. Longer rows are
# summed in blocks of this size first, and then only one block step by step.
_BLOCK = 128


def keep_top_k(scores: Row, top_k: int) -> Positions:
    """Positions of the `top_k` highest scores, and of those equal to the last of them.

    Args:
        scores: float32 [count].
        top_k: 1 or more.

    Returns:
        Positions, ascending.
    """
    last = len(scores) - top_k
    if last <= 0:
        return np.arange(len(scores))
    return np.flatnonzero(scores >= np.partition(scores, last)[last])


def keep_top_p(weights: Row, top_p: float) -> Positions:
    """Positions of the likeliest until their share reaches `top_p`; always at least one.

    Of equal weights the earlier positions are kept first.

    Args:
        weights: 0 or more, proportional to probabilities, shape [count].
        top_p: Above 0, at most 1.

    Returns:
        Integers [kept], rising.
    """
    total = float(weights.sum())
    surplus = (1 - top_p) * total
    # Only what may be kept is sorted: few likely ids if they make up the share, as they mostly do;
    # otherwise all but weights up to surplus / count, which together weigh no more than it.
    for least in (_LIKELY * float(weights.max()), surplus / len(weights)):
        near = np.flatnonzero(weights > least)
        candidates = weights[near]
        share = float(candidates.sum())
        if share > total - surplus:
            break
    ascending = np.sort(candidates)
    dropped = _first_beyond(ascending, surplus - (total - share))
    lowest = ascending[dropped]
    stays = candidates >= lowest
    too_many = np.count_nonzero(stays) - (len(ascending) - dropped)
    if too_many:
        stays[np.flatnonzero(candidates == lowest)[-too_many:]] = False
    kept: Positions = near[stays]
    return kept


def keep_min_p(weights: Row, min_p: float) -> Positions:
    """Positions at least `min_p` times as likely as the likeliest.

    Args:
        weights: Proportional to probabilities, float32 [count].
        min_p: 0 to 1.

    Returns:
        Positions, ascending.
    """
    return np.flatnonzero(weights >= min_p * weights.max())


def draw(weights: Row, uniform: float) -> int:
    """A position, each as probable as its weight: where `uniform` falls along their sum.

    Args:
        weights: 0 or more, not all 0, shape [count].
        uniform: From 0 up to, but not including, 1.

    Returns:
        From 0 up to, but not including, count.
    """
    return _first_beyond(weights, uniform * float(weights.sum()))


def likeliest(scores: Row, count: int) -> Positions:
    """Positions of the `count` highest scores, highest first; of equal scores the earlier ones.

    Args:
        scores: float32 [vocab_size].
        count: How many.

    Returns:
        Positions, [count].
    """
    near = keep_top_k(scores, count)
    return near[np.argsort(-scores[near], kind="stable")][:count]


def _first_beyond(weights: Row, target: float) -> int:
    """First position at which the running sum exceeds `target`.

    Where rounding leaves none, it is the last position that has a weight.
    """
    start = 0
    if len(weights) > 4 * _BLOCK:
        blocks = np.add.reduceat(weights, np.arange(0, len(weights), _BLOCK))
        sums = blocks.cumsum(dtype=np.float64)
        block = _search(sums, target)
        target -= float(sums[block - 1]) if block else 0.0
        start = block * _BLOCK
        weights = weights[start : start + _BLOCK]
    return start + _search(weights.cumsum(dtype=np.float64), target)


def _search(running: NDArray[np.float64], target: float) -> int:
    position = int(running.searchsorted(target, "right"))
    return position if position < len(running) else int(running.searchsorted(running[-1]))
