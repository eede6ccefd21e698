"""Activations times a stored matrix, on several threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.kernels.aligned import aligned
from gpt_neox_japanese.kernels.constants import GROUP, MAX_FEW_ROWS
from gpt_neox_japanese.kernels.parallel_for import parallel_for
from gpt_neox_japanese.quantization.formats import Matrix

__all__ = ["matmul"]

_OUTPUT_MULTIPLE = (
    32  # the outputs of a thread are a multiple of this, as many as `gemv` takes at once
)

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
    if rows * outputs * columns < _MIN_PRODUCTS_FOR_THREADS:
        threads = 1
    few = rows <= MAX_FEW_ROWS
    multiply = _bind_gemv(x, matrix) if few else _bind_gemm(x, matrix, threads)
    parallel_for(
        lambda first, last: multiply(out, first, last), outputs, threads, multiple=_OUTPUT_MULTIPLE
    )
    return out


def _bind_gemv(x: NDArray[np.float32], matrix: Matrix) -> _Kernel:
    """The kernel for a format and few rows, which are quantized if it needs that."""
    from gpt_neox_japanese.kernels.products import gemv  # with Numba, which a model may never need

    numbers, scales = _plain(matrix)
    if scales is None:
        is_half = numbers.dtype == np.uint16
        return partial(gemv.gemv_bfloat16 if is_half else gemv.gemv_float32, numbers, x)
    q, x_scales, corrections = _quantize(x)
    if numbers.dtype == np.int8:
        return partial(gemv.gemv_int8, numbers, scales, q, x_scales)
    return partial(gemv.gemv_int4, numbers, scales, q, x_scales, corrections)


def _bind_gemm(x: NDArray[np.float32], matrix: Matrix, threads: int) -> _Kernel:
    """The kernel for a format and many rows, which are packed."""
    from gpt_neox_japanese.kernels.products import gemm

    numbers, scales = _plain(matrix)
    size = gemm.packed_size(*x.shape)
    if scales is None:
        floats = aligned((size,), np.float32)
        pack = partial(gemm.pack_floats, x, floats)
        parallel_for(pack, len(x), threads, multiple=gemm.PANEL_ROWS)
        is_half = numbers.dtype == np.uint16
        return partial(gemm.gemm_bfloat16 if is_half else gemm.gemm_float32, numbers, floats)
    q, x_scales, _ = _quantize(x)
    integers = aligned((size,), np.int16)
    pack = partial(gemm.pack_integers, q, integers)
    parallel_for(pack, len(x), threads, multiple=gemm.PANEL_ROWS)
    kernel = gemm.gemm_int8 if numbers.dtype == np.int8 else gemm.gemm_int4
    return partial(kernel, numbers, scales, integers, x_scales)


def _plain(matrix: Matrix) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Numbers and scales; not of a memory map's own class, which Numba is slow with."""
    return np.asarray(matrix.numbers), None if matrix.scales is None else np.asarray(matrix.scales)


def _quantize(
    x: NDArray[np.float32],
) -> tuple[NDArray[np.int16], NDArray[np.float32], NDArray[np.int32]]:
    """Quantize activations; see `quantize_rows`."""
    from gpt_neox_japanese.kernels.products import gemv

    rows, columns = x.shape
    q = aligned((rows, columns), np.int16)
    scales = np.empty(rows, np.float32)
    corrections = np.empty((rows, -(-columns // GROUP)), np.int32)
    gemv.quantize_rows(x, q, scales, corrections)
    return q, scales, corrections
