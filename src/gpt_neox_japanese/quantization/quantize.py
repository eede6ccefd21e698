"""Quantizes weights to int8 or int4 with the scales of least squared error."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.kernels.constants import GROUP
from gpt_neox_japanese.quantization.bfloat16_arrays import bfloat16_array, float32_array
from gpt_neox_japanese.quantization.formats import Matrix
from gpt_neox_japanese.quantization.int4 import pack_int4
from gpt_neox_japanese.quantization.kernel_quantize import (
    quantize_int4_groups,
    quantize_int8_rows,
)

__all__ = ["INT4_STEPS", "LARGE", "quantize"]

# The largest weight that is not clipped, over the largest of the row; 1 is plain rounding.
_INT8_CLIPPING = np.array(
    [1, 0.98, 0.96, 0.94, 0.92, 0.9, 0.87, 0.84, 0.8, 0.75, 0.7], dtype=np.float32
)

_STEPS = np.arange(5.5, 10.25, 0.25, dtype=np.float32)
INT4_STEPS = np.concatenate([np.array([7], dtype=np.float32), _STEPS, -_STEPS])
"""What is tried as the largest weight of a group over its scale; 7 is plain rounding."""

LARGE = np.float32(1e15)
"""Squares of weights up to here, and sums of them, are finite."""

_SHRINK = np.float32(2.0**-80)

Floats: TypeAlias = NDArray[np.float32]


def quantize(weight: NDArray[np.float32], bits: int, *, search: bool = True) -> Matrix:
    """Quantize a matrix: integers with scales.

    Args:
        weight: float32 [outputs, columns].
        bits: 8 (a scale a row) or 4 (a scale for GROUP columns).
        search: Try several scales and keep the one with the least squared error; otherwise the
            largest weight decides.

    Returns:
        The matrix, int8 or int4.

    Raises:
        CheckpointError: A weight is not finite, or the number of columns allows no groups.
    """
    if weight.ndim != 2 or not np.isfinite(weight).all():
        raise CheckpointError(
            f"weights of shape {list(weight.shape)} must be a matrix of finite numbers to be"
            " rounded to integers"
        )
    weight = np.ascontiguousarray(weight, dtype=np.float32)
    outputs, columns = weight.shape
    quantized = np.empty(weight.shape, np.int8)
    if bits == 8:
        weight, shrunk = _shrink(weight, columns)
        scales = np.zeros(outputs, np.float32)
        quantize_int8_rows(
            weight, _INT8_CLIPPING if search else _INT8_CLIPPING[:1], quantized, scales
        )
        scales[shrunk] /= _SHRINK
        return _finite(Matrix(quantized, scales))
    if bits != 4:
        raise CheckpointError(f"{bits} bits are not written here; choose 4 or 8")
    if columns % GROUP:
        raise CheckpointError(f"{columns} columns are no multiple of {GROUP}; choose 8 bits")
    weight, shrunk = _shrink(weight, GROUP)
    patterns = np.zeros((outputs, columns // GROUP), np.uint16)
    alike = np.ones(columns, np.float32)
    steps = INT4_STEPS if search else INT4_STEPS[:1]
    quantize_int4_groups(weight, alike, steps, quantized, patterns)
    groups = patterns.reshape(-1)
    groups[shrunk] = bfloat16_array(float32_array(groups[shrunk]) / _SHRINK)
    return _finite(Matrix(pack_int4(quantized), patterns))


def _shrink(weight: Floats, columns: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Divide what shares a scale by a power of two where squared errors would be infinite.

    Args:
        weight: float32 [outputs, columns].
        columns: How many share a scale.

    Returns:
        The matrix, a copy if something in it is too large, and a bool for each scale: whether it
        must be multiplied in the end.
    """
    groups = weight.reshape(-1, columns)
    large = np.maximum(groups.max(axis=1, initial=0), -groups.min(axis=1, initial=0)) > LARGE
    if large.any():
        groups = groups.copy()
        groups[large] *= _SHRINK
    return groups.reshape(weight.shape), large


def _finite(matrix: Matrix) -> Matrix:
    """Refuse the few matrices whose largest weights, rounded up, are no float32."""
    assert matrix.scales is not None
    large = np.abs(float32_array(matrix.scales)).max(initial=0) > LARGE
    with np.errstate(over="ignore"):
        finite = not large or np.isfinite(matrix.floats()).all()
    if not finite:
        raise CheckpointError(
            "the largest weights are too near the end of float32 to be rounded to integers"
        )
    return matrix
