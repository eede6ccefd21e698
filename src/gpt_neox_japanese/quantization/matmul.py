"""Activations times a stored matrix, on several threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.kernels.aligned import aligned
from gpt_neox_japanese.kernels.constants import GROUP
from gpt_neox_japanese.kernels.parallel_for import parallel_for
from gpt_neox_japanese.quantization.formats import Matrix

__all__ = ["matmul"]

_OUTPUT_MULTIPLE = 32  # the outputs of a thread are a multiple of this: a panel of the kernel

# With fewer, one thread is done before a second has begun.
_MIN_PRODUCTS_FOR_THREADS = 1 << 18

_Kernel = Callable[[NDArray[np.float32], int, int], Any]


def matmul(x: NDArray[np.float32], matrix: Matrix, *, threads: int = 1) -> NDArray[np.float32]:
    """Multiply activations by a transposed matrix.

    With int8 and int4 weights, activations are rounded to 12 bits. A row of the result does not
    depend on the other rows, on their number, or on `threads`.

    Args:
        x: float32 [rows, columns], any number of rows.
        matrix: [outputs, columns].
        threads: Among how many the outputs are divided.

    Returns:
        float32 [rows, outputs].
    """
    x = np.ascontiguousarray(x, dtype=np.float32)
    rows, (outputs, columns) = len(x), matrix.shape
    assert x.shape == (rows, columns), (x.shape, matrix.shape)
    out = np.empty((rows, outputs), np.float32)
    if not rows:
        return out
    multiply = _bind_kernel(x, matrix)
    if rows * outputs * columns < _MIN_PRODUCTS_FOR_THREADS:
        threads = 1
    parallel_for(
        lambda first, last: multiply(out, first, last), outputs, threads, multiple=_OUTPUT_MULTIPLE
    )
    return out


def _bind_kernel(x: NDArray[np.float32], matrix: Matrix) -> _Kernel:
    """The kernel for a format, with activations quantized if it needs that."""
    from gpt_neox_japanese.kernels import gemv  # Numba, which a model may never need

    numbers = np.asarray(matrix.numbers)  # not a memory map's own class, which Numba is slow with
    if matrix.scales is None:
        is_half = numbers.dtype == np.uint16
        return partial(gemv.gemv_bfloat16 if is_half else gemv.gemv_float32, numbers, x)
    rows, columns = x.shape
    q = aligned((rows, columns), np.int16)
    scales = np.empty(rows, np.float32)
    corrections = np.empty((rows, -(-columns // GROUP)), np.int32)
    gemv.quantize_rows(x, q, scales, corrections)
    stored = numbers, np.asarray(matrix.scales)
    if numbers.dtype == np.int8:
        return partial(gemv.gemv_int8, *stored, q, scales)
    return partial(gemv.gemv_int4, *stored, q, scales, corrections)
