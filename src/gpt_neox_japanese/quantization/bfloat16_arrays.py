"""bfloat16 in NumPy, which has no such dtype: arrays hold its bits as uint16."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.kernels.constants import BFLOAT16_NAN

__all__ = ["bfloat16_array", "bfloat16_to_float32", "float32_array", "float32_to_bfloat16"]


def float32_array(numbers: NDArray[Any]) -> NDArray[np.float32]:
    """Convert to float32.

    Args:
        numbers: float32, float16, or bfloat16 as uint16, of any shape.

    Returns:
        float32 of the same shape; the same array if it is float32 already.
    """
    if numbers.dtype == np.uint16:
        return bfloat16_to_float32(numbers)
    return np.ascontiguousarray(numbers, dtype=np.float32)


def bfloat16_array(numbers: NDArray[Any]) -> NDArray[np.uint16]:
    """Convert to bfloat16, rounded to nearest even.

    Args:
        numbers: float32, float16, or bfloat16 as uint16, of any shape.

    Returns:
        bfloat16 as uint16 of the same shape; the same array if it is bfloat16 already.
    """
    if numbers.dtype == np.uint16:
        return np.ascontiguousarray(numbers)
    return float32_to_bfloat16(np.ascontiguousarray(numbers, dtype=np.float32))


def bfloat16_to_float32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Convert bfloat16 to float32.

    Args:
        bits: bfloat16 as uint16, of any shape.

    Returns:
        float32 of the same shape.
    """
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def float32_to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Convert float32 to bfloat16, rounded to nearest even.

    Args:
        values: float32, of any shape; NaN stays NaN.

    Returns:
        bfloat16 as uint16 of the same shape.
    """
    is_nan = np.isnan(values)
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    result = (rounded >> np.uint32(16)).astype(np.uint16)
    if is_nan.any():  # what rounding carries would make infinity or 0 of it
        result[is_nan] = BFLOAT16_NAN
    return result
