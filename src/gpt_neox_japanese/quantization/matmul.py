"""Activations times a stored matrix, shared out to threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.kernels import gemv as kernel
from gpt_neox_japanese.kernels.aligned import aligned
from gpt_neox_japanese.kernels.constants import GROUP
from gpt_neox_japanese.kernels.parallel_for import parallel_for
from gpt_neox_japanese.quantization.formats import Matrix

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
    if rows * outputs * columns < _SMALL:
        threads = 1
    parallel_for(lambda first, last: part(out, first, last), outputs, threads, multiple=_OUTPUTS)
    return out


def _part(x: NDArray[np.float32], matrix: Matrix) -> _Part:
    """What writes some outputs, the activations being prepared."""
    numbers = np.asarray(matrix.numbers)  # not a memory map's own class, which Numba is slow with
    if matrix.scales is None:
        is_half = numbers.dtype == np.uint16
        return partial(kernel.gemv_bfloat16 if is_half else kernel.gemv_float32, numbers, x)
    rows, columns = x.shape
    q = aligned((rows, columns), np.int16)
    scales = np.empty(rows, np.float32)
    corrections = np.empty((rows, -(-columns // GROUP)), np.int32)
    kernel.quantize_rows(x, q, scales, corrections)
    stored = numbers, np.asarray(matrix.scales)
    if numbers.dtype == np.int8:
        return partial(kernel.gemv_int8, *stored, q, scales)
    return partial(kernel.gemv_int4, *stored, q, scales, corrections)
