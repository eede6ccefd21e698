"""What the kernels compute, in NumPy: slow, readable, and equal to the last bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.kernels.constants import GROUP, QMAX
from gpt_neox_japanese.quantization.bfloat16_arrays import bfloat16_to_float32
from gpt_neox_japanese.quantization.int4 import unpack_int4

Floats = NDArray[np.float32]


def quantize_rows(x: Floats) -> tuple[NDArray[np.int16], Floats, NDArray[np.int32]]:
    """Whole numbers, scales and corrections; see the kernel of this name."""
    largest = np.float32(QMAX)
    peaks = np.abs(x).max(axis=1, initial=0)
    finite, zero = np.isfinite(peaks), peaks < np.float32(1e-30)
    usable = finite & ~zero
    peaks = np.where(usable, peaks, largest)
    scales = np.where(usable, peaks / largest, np.where(finite, np.float32(0), np.float32(np.nan)))
    factors = np.where(usable, largest / peaks, np.float32(0))[:, None]
    q = np.rint(np.where(usable[:, None], x, np.float32(0)) * factors).astype(np.int16)
    padded = np.pad(q.astype(np.int32), ((0, 0), (0, -q.shape[1] % GROUP)))
    return q, scales, -8 * padded.reshape(len(q), -1, GROUP).sum(axis=2, dtype=np.int32)


def gemv_float32(weights: NDArray[np.floating], x: Floats) -> NDArray[np.float64]:
    """The product in float64, `(rows, outputs)`."""
    return x.astype(np.float64) @ weights.astype(np.float64).T


def gemv_int8(
    weights: NDArray[np.integer], weight_scales: Floats, q: NDArray[np.int16], x_scales: Floats
) -> Floats:
    """The very bits of the kernel: exact sums, rounded, then scaled."""
    totals = (q.astype(np.int64) @ weights.T.astype(np.int64)).astype(np.float32)
    return totals * (weight_scales * x_scales[:, None])


def gemv_int4(
    packed: NDArray[np.uint8],
    group_scales: NDArray[np.uint16],
    q: NDArray[np.int16],
    x_scales: Floats,
) -> Floats:
    """The very bits of the kernel: weights are whole numbers of a row's scale, as in int8."""
    scales = bfloat16_to_float32(group_scales).astype(np.float64)
    largest = np.maximum(np.abs(scales).max(axis=1, keepdims=True), 2.0**-117)
    row_scales = 2.0 ** np.ceil(np.log2(largest / 816))  # so that no multiplier is larger
    multipliers = np.rint(scales / row_scales).astype(np.int64)
    weights = unpack_int4(packed) * np.repeat(multipliers, GROUP, axis=1)
    return gemv_int8(weights, row_scales[:, 0].astype(np.float32), q, x_scales)
