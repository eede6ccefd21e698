"""In which windows a model reads a text that it is measured on.

`neox-ja evaluate` and the measurements within a training run cut texts by these functions, so that
both read the same tokens with the same context.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ScoringWindow", "count_windows", "window_at"]


class ScoringWindow(NamedTuple):
    """A window of a text.

    Attributes:
        start: Its first id.
        end: The id after its last one. The model reads all but the last, and predicts all but the
            first.
        num_targets: How many of its ids, at the end, count; those before are context.
    """

    start: int
    end: int
    num_targets: int


def count_windows(num_ids: int, window: int, stride: int) -> int:
    """Count the windows of a text.

    Args:
        num_ids: Ids of the text, the end-of-text id before and after it included; at least two.
        window: How many ids the model reads.
        stride: How many ids each window but the first predicts.

    Returns:
        At least 1.
    """
    return 1 + -(-max(0, num_ids - window - 1) // stride)


def window_at(index: int, num_ids: int, window: int, stride: int) -> ScoringWindow:
    """Give one of the windows of a text; together they predict every id but the first once.

    Args:
        index: Which of them, from 0.
        num_ids: As of `count_windows`.
        window: As of `count_windows`.
        stride: As of `count_windows`; at most `window`.

    Returns:
        The window.

    Example:
        >>> [tuple(window_at(index, 10, 4, 3)) for index in range(count_windows(10, 4, 3))]
        [(0, 5, 4), (3, 8, 3), (5, 10, 2)]
    """
    end = min(window + 1 + index * stride, num_ids)
    previous = window + 1 + (index - 1) * stride if index else 1
    return ScoringWindow(max(0, end - window - 1), end, end - previous)
