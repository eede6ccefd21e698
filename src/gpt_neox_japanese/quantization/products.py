"""Activations times a stored matrix, shared out to threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.quantization import kernel_multiply as kernel
from gpt_neox_japanese.quantization.formats import Matrix
from gpt_neox_japanese.quantization.memory import aligned
from gpt_neox_japanese.quantization.reference import GROUP

__all__ = ["matmul"]

_OUTPUTS = 32  # a thread's share is a multiple of this

# Products that one thread is done with before a second has begun.
_SMALL = 1 << 18

_Part = Callable[[NDArray[np.float32], int, int], Any]


def matmul(x: NDArray[np.float32], matrix: Matrix, *, threads: int = 1) -> NDArray[np.float32]:
    """`x` times the transposed matrix.

    With int8 and int4 weights, activations are rounded to 12 bits. A row of the result does not
    depend on the other rows, on their number, or on `threads`.

    Args:
        x: float32 `(rows, columns)`, any number of rows.
        matrix: `(outputs, columns)`.
        threads: How many share the outputs.

    Returns:
        float32 `(rows, outputs)`.
    """
    x = np.ascontiguousarray(x, dtype=np.float32)
    rows, (outputs, columns) = len(x), matrix.shape
    assert x.shape == (rows, columns), (x.shape, matrix.shape)
    out = np.empty((rows, outputs), np.float32)
    if not rows:
        return out
    part = _part(x, matrix)
    if threads == 1 or rows * outputs * columns < _SMALL:
        part(out, 0, outputs)
        return out
    share = -(-outputs // threads // _OUTPUTS) * _OUTPUTS
    bounds = [(first, min(first + share, outputs)) for first in range(0, outputs, share)]
    list(_pool(os.getpid(), threads).map(lambda bound: part(out, *bound), bounds))
    return out


def _part(x: NDArray[np.float32], matrix: Matrix) -> _Part:
    """What writes some outputs, the activations being prepared."""
    numbers = np.asarray(matrix.numbers)  # not a memory map's own class, which Numba is slow with
    if matrix.scales is None:
        is_half = numbers.dtype == np.uint16
        return partial(kernel.multiply_bfloat if is_half else kernel.multiply_float, numbers, x)
    rows, columns = x.shape
    q = aligned((rows, columns), np.int16)
    scales = np.empty(rows, np.float32)
    corrections = np.empty((rows, -(-columns // GROUP)), np.int32)
    kernel.quantize_rows(x, q, scales, corrections)
    stored = numbers, np.asarray(matrix.scales)
    if numbers.dtype == np.int8:
        return partial(kernel.multiply_int8, *stored, q, scales)
    return partial(kernel.multiply_int4, *stored, q, scales, corrections)


@cache
def _pool(_: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process: after a fork there are none, whatever the parent had."""
    return ThreadPoolExecutor(threads, thread_name_prefix="matmul")
