"""What the kernels compute, in NumPy: the twins that they are tested against, and layouts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "GROUP",
    "LARGEST",
    "SCALE",
    "bfloat_to_float",
    "float_to_bfloat",
    "multiply_float",
    "multiply_int4",
    "multiply_int8",
    "pack_int4",
    "quantize_rows",
    "unpack_int4",
]

GROUP = 64  # columns of int4 that share a scale
SCALE = "_scale"  # what is added to a tensor's name for its scales
LARGEST = 2047  # of a quantised activation

_SHIFTS = np.array([[0], [4], [8], [12]], dtype=np.uint16)  # of the nibbles of a word

Floats = NDArray[np.float32]


def bfloat_to_float(bits: NDArray[np.uint16]) -> Floats:
    """float32 from bit patterns of bfloat16."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def float_to_bfloat(values: Floats) -> NDArray[np.uint16]:
    """Bit patterns of bfloat16, halves to even, from float32 without NaN."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype(np.uint16)


def pack_int4(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Pack -8 to 7, `(outputs, columns)`, as value + 8 in nibbles, uint8 `(outputs, columns / 2)`.

    The 32 bytes of a group of 64 are 16 little-endian words; nibble h of word i, from the lowest,
    is column 16 h + i.
    """
    nibbles = (values + 8).astype(np.uint16).reshape(len(values), -1, 4, GROUP // 4)
    words: NDArray[np.uint16] = np.bitwise_or.reduce(nibbles << _SHIFTS, axis=2)
    return words.astype("<u2").view(np.uint8).reshape(len(values), -1)


def unpack_int4(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    """The way back from `pack_int4`."""
    words = np.ascontiguousarray(packed).view("<u2").reshape(len(packed), -1, 1, GROUP // 4)
    nibbles = (words >> _SHIFTS) & np.uint16(15)
    values: NDArray[np.int8] = nibbles.astype(np.int8) - np.int8(8)
    return values.reshape(len(packed), -1)


def quantize_rows(x: Floats) -> tuple[NDArray[np.int16], Floats, NDArray[np.int32]]:
    """Whole numbers, scales and corrections; see the kernel of this name."""
    largest = np.float32(LARGEST)
    peaks = np.abs(x).max(axis=1, initial=0)
    finite, zero = np.isfinite(peaks), peaks < np.float32(1e-30)
    usable = finite & ~zero
    peaks = np.where(usable, peaks, largest)
    scales = np.where(usable, peaks / largest, np.where(finite, np.float32(0), np.float32(np.nan)))
    factors = np.where(usable, largest / peaks, np.float32(0))[:, None]
    q = np.rint(np.where(usable[:, None], x, np.float32(0)) * factors).astype(np.int16)
    padded = np.pad(q.astype(np.int32), ((0, 0), (0, -q.shape[1] % GROUP)))
    return q, scales, -8 * padded.reshape(len(q), -1, GROUP).sum(axis=2, dtype=np.int32)


def multiply_float(weights: NDArray[np.floating], x: Floats) -> NDArray[np.float64]:
    """The product in float64, `(rows, outputs)`."""
    return x.astype(np.float64) @ weights.astype(np.float64).T


def multiply_int8(
    weights: NDArray[np.int8], weight_scales: Floats, q: NDArray[np.int16], x_scales: Floats
) -> Floats:
    """The very bits of the kernel: exact sums, rounded, then scaled."""
    totals = (q.astype(np.int64) @ weights.T.astype(np.int64)).astype(np.float32)
    return totals * (weight_scales * x_scales[:, None])


def multiply_int4(
    packed: NDArray[np.uint8],
    group_scales: NDArray[np.uint16],
    q: NDArray[np.int16],
    x_scales: Floats,
) -> Floats:
    """The very bits of the kernel: exact sums of a group in eight lanes, then floats in order."""
    outputs, groups = group_scales.shape
    weights = unpack_int4(packed).astype(np.int32) + 8
    lanes = (q[:, None] * weights[None]).reshape(len(q), outputs, groups, 4, 8, 2).sum(axis=(3, 5))
    corrections = -8 * q.astype(np.int32).reshape(len(q), groups, GROUP).sum(axis=2)
    lanes[..., 0] += corrections[:, None]
    scaled = lanes.astype(np.float32) * bfloat_to_float(group_scales)[None, :, :, None]
    total = np.zeros((len(q), outputs), np.float32)
    for start in range(0, groups, 32):
        sums = np.zeros((len(q), outputs, 8), np.float32)
        for group in range(start, min(start + 32, groups)):
            sums += scaled[:, :, group]
        for half in (4, 2, 1):
            sums = sums[..., :half] + sums[..., half : 2 * half]
        total += sums[..., 0]
    return total * x_scales[:, None]
