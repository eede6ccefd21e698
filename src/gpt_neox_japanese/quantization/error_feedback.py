"""Quantizes a matrix to int4 so that its products with real activations change least (GPTQ).

Rounding every weight to the nearest integer would be best if the activations that a matrix meets
had nothing to do with each other. They have: where two columns meet activations that rise and fall
together, too much in the one is made good by too little in the other.

Let H be the mean of x xᵀ over the activations x of some text, and e the errors of a row of weights.
The mean squared error of that row's output is e H eᵀ. With H = A D Aᵀ, where D is diagonal and A
upper triangular with ones on its diagonal, this is a sum of one square for each column:

    Σₖ dₖ (eₖ + Σ eⱼ Aⱼₖ)²    j < k

So columns are rounded from left to right, each to what its weight *and the errors before it* ask
for, which makes its own square as small as it can be. The scale of a group is searched when its
turn comes, for what is then to be rounded, and with the weights dₖ.

The method is that of Frantar et al. (2023, arXiv:2210.17323), in the form that Chee et al. (2023,
arXiv:2307.13304) gave it.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.kernels.constants import GROUP
from gpt_neox_japanese.quantization.bfloat16_arrays import float32_array
from gpt_neox_japanese.quantization.formats import Matrix
from gpt_neox_japanese.quantization.int4 import pack_int4
from gpt_neox_japanese.quantization.kernel_quantize import quantize_int4_groups
from gpt_neox_japanese.quantization.quantize import INT4_STEPS, LARGE, quantize

__all__ = ["damped", "output_errors", "quantize_with_feedback"]

Floats: TypeAlias = NDArray[np.float32]

# What is added to the diagonal of H, of its mean: few tokens say little about rare directions.
_DAMPING = 0.01
_NOTHING = 1e-30  # a mean square of activations


def quantize_with_feedback(weight: Floats, moments: Floats) -> Matrix:
    """Quantize a matrix to int4, its errors fed back.

    Rows for which `quantize` happens to do better on the same activations are taken from there.

    Args:
        weight: float32 [outputs, columns].
        moments: H, float32 [columns, columns]: the mean of x xᵀ over the activations x that the
            matrix is multiplied by.

    Returns:
        The matrix, int4.

    Raises:
        CheckpointError: A weight or a moment is not finite, or the number of columns allows no
            groups.
    """
    rounded = quantize(weight, 4)
    if not np.isfinite(moments).all():
        raise CheckpointError(
            "the activations of the calibration text are not finite; convert without calibration,"
            " or look for what is broken in the model"
        )
    moments = damped(moments)
    if not moments.any() or np.abs(weight).max(initial=0) > LARGE:
        return rounded
    try:
        feedback, importance = _factorize(moments)
    except np.linalg.LinAlgError:  # one direction is so strong that float32 hides all others
        return rounded
    fed_back = _round_columns(weight, feedback, importance)
    better = output_errors(fed_back.floats() - weight, moments) < output_errors(
        rounded.floats() - weight, moments
    )
    assert fed_back.scales is not None
    assert rounded.scales is not None
    return Matrix(
        np.where(better[:, None], fed_back.numbers, rounded.numbers),
        np.where(better[:, None], fed_back.scales, rounded.scales),
    )


def damped(moments: Floats) -> Floats:
    """Moments by which errors are judged: 1 on the average, with a little more on the diagonal.

    Args:
        moments: float32 [columns, columns].

    Returns:
        The same shape; zeros where there are no activations to speak of.
    """
    mean = np.diagonal(moments).mean(dtype=np.float64)
    if mean < _NOTHING:
        return np.zeros_like(moments)
    result = moments * np.float32(1 / mean)
    result.reshape(-1)[:: len(result) + 1] += np.float32(_DAMPING)
    return result


def output_errors(errors: Floats, moments: Floats) -> Floats:
    """The mean squared error of each output.

    Args:
        errors: Of the weights, float32 [outputs, columns].
        moments: float32 [columns, columns].

    Returns:
        float32 [outputs].
    """
    result: Floats = ((errors @ moments) * errors).sum(axis=1)
    return result


def _factorize(moments: Floats) -> tuple[Floats, Floats]:
    """H = A D Aᵀ: A, float32 [columns, columns], and the diagonal of D, float32 [columns].

    Cholesky's factor is lower triangular; of the columns in reverse order it is upper.
    """
    lower = np.linalg.cholesky(moments[::-1, ::-1].astype(np.float64))
    upper = lower[::-1, ::-1]
    diagonal = np.diagonal(upper).copy()
    return (upper / diagonal).astype(np.float32), (diagonal**2).astype(np.float32)


def _round_columns(weight: Floats, feedback: Floats, importance: Floats) -> Matrix:
    """Round from left to right.

    Args:
        weight: float32 [outputs, columns].
        feedback: A of H = A D Aᵀ, float32 [columns, columns].
        importance: The diagonal of D, float32 [columns].
    """
    outputs, columns = weight.shape
    # In Fortran's order, where a column's numbers follow each other.
    errors = np.zeros(weight.shape, np.float32, order="F")
    integers = np.zeros(weight.shape, np.int8, order="F")
    patterns = np.zeros((outputs, columns // GROUP), np.uint16)
    scratch = np.empty((outputs, GROUP), np.int8)
    for first in range(0, columns, GROUP):
        group = slice(first, first + GROUP)
        wanted = weight[:, group] + errors[:, :first] @ feedback[:first, group]
        bits = np.zeros((outputs, 1), np.uint16)
        quantize_int4_groups(
            np.ascontiguousarray(wanted), importance[group], INT4_STEPS, scratch, bits
        )
        patterns[:, first // GROUP] = bits[:, 0]
        scales = float32_array(bits[:, 0])
        factors = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
        for column in range(first, first + GROUP):
            before = errors[:, first:column] @ feedback[first:column, column]
            steps = np.rint((wanted[:, column - first] + before) * factors)
            integers[:, column] = np.clip(steps, -8, 7)
            errors[:, column] = weight[:, column] - integers[:, column] * scales
    return Matrix(pack_int4(np.ascontiguousarray(integers)), patterns)
