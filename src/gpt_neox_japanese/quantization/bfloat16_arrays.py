"""One kind of float to another. NumPy has no bfloat16: its bits are kept as uint16."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["as_bfloat", "as_float", "bfloat_to_float", "float_to_bfloat"]


def as_float(numbers: NDArray[Any]) -> NDArray[np.float32]:
    """float32, float16, or bfloat16 as uint16, of any shape, as float32."""
    if numbers.dtype == np.uint16:
        return bfloat_to_float(numbers)
    return np.ascontiguousarray(numbers, dtype=np.float32)


def as_bfloat(numbers: NDArray[Any]) -> NDArray[np.uint16]:
    """The same as bfloat16, rounded to nearest even."""
    if numbers.dtype == np.uint16:
        return np.ascontiguousarray(numbers)
    return float_to_bfloat(np.ascontiguousarray(numbers, dtype=np.float32))


def bfloat_to_float(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """float32 from bit patterns of bfloat16."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def float_to_bfloat(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Bit patterns of bfloat16, halves to even, from float32 without NaN."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype(np.uint16)
