"""One kind of float to another. NumPy has no bfloat16: its bits are kept as uint16."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.quantization.reference import bfloat_to_float, float_to_bfloat

__all__ = ["as_bfloat", "as_float"]


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
