"""Errors that are fed back cost less of what a matrix gives than errors that are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.quantization.bfloat16_arrays import float32_array
from gpt_neox_japanese.quantization.error_feedback import (
    damped,
    output_errors,
    quantize_with_feedback,
)
from gpt_neox_japanese.quantization.formats import Matrix
from gpt_neox_japanese.quantization.int4 import unpack_int4
from gpt_neox_japanese.quantization.quantize import quantize

Floats = NDArray[np.float32]


def weights(*size: int) -> Floats:
    """Mostly small, some large, as trained matrices are."""
    return np.random.default_rng(0).standard_t(4, size).astype(np.float32)


def activations(columns: int, *, directions: int = 24, tokens: int = 600) -> Floats:
    """Columns that mostly rise and fall together, some far more than others."""
    random = np.random.default_rng(1)
    shared = random.standard_normal((tokens, directions)) @ random.standard_normal(
        (directions, columns)
    )
    own = 0.3 * random.standard_normal((tokens, columns))
    return ((shared + own) * np.exp(random.standard_normal(columns))).astype(np.float32)


def moments_of(x: Floats) -> Floats:
    return (x.T @ x) / np.float32(len(x))


def errors(matrix: Matrix, weight: Floats, moments: Floats) -> Floats:
    return output_errors(matrix.floats() - weight, damped(moments))


@pytest.mark.parametrize("columns", [64, 192, 320])
def test_no_row_is_worse_than_rounded_to_nearest_and_all_together_far_better(columns: int) -> None:
    weight, moments = weights(70, columns), moments_of(activations(columns))
    fed_back = errors(quantize_with_feedback(weight, moments), weight, moments)
    rounded = errors(quantize(weight, 4), weight, moments)
    assert (fed_back <= rounded).all()
    assert fed_back.sum() < 0.4 * rounded.sum()


def test_products_with_other_activations_of_the_kind_are_nearer_too() -> None:
    weight, x = weights(70, 192), activations(192, tokens=1200)
    matrix = quantize_with_feedback(weight, moments_of(x[:600]))
    seen, unseen = (
        [
            float(((part @ (m.floats() - weight).T) ** 2).mean())
            for m in (matrix, quantize(weight, 4))
        ]
        for part in (x[:600], x[600:])
    )
    assert seen[0] < 0.4 * seen[1]
    assert unseen[0] < 0.4 * unseen[1]


def test_activations_that_have_nothing_to_do_with_each_other_mean_plain_rounding() -> None:
    weight = weights(30, 128)
    result, rounded = quantize_with_feedback(weight, np.eye(128, dtype="f4")), quantize(weight, 4)
    np.testing.assert_array_equal(result.numbers, rounded.numbers)
    np.testing.assert_array_equal(result.scales, rounded.scales)


def test_the_integers_are_those_of_the_method_as_it_was_published() -> None:
    """With the inverse of the moments, and every column's error taken to all columns after it."""
    weight, moments = weights(40, 192), moments_of(activations(192))
    matrix = quantize_with_feedback(weight, moments)
    assert matrix.scales is not None
    scales = np.repeat(float32_array(matrix.scales), 64, axis=1).astype(np.float64)
    upper = np.linalg.cholesky(np.linalg.inv(damped(moments).astype(np.float64))).T
    left = weight.astype(np.float64)
    integers = np.zeros(weight.shape)
    for column in range(192):
        integers[:, column] = np.clip(np.rint(left[:, column] / scales[:, column]), -8, 7)
        error = left[:, column] - integers[:, column] * scales[:, column]
        left[:, column:] -= np.outer(error / upper[column, column], upper[column, column:])
    different = (unpack_int4(matrix.numbers) != integers).any(axis=1)
    assert different.sum() <= 1  # where float32 rounds a half to the other side


def test_the_same_activations_give_the_same_bytes() -> None:
    weight, moments = weights(70, 192), moments_of(activations(192))
    first, second = (quantize_with_feedback(weight, moments) for _ in range(2))
    assert first.scales is not None
    assert second.scales is not None
    assert first.numbers.tobytes() == second.numbers.tobytes()
    assert first.scales.tobytes() == second.scales.tobytes()


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((5, 128), np.float32),
        np.ones((5, 128), np.float32),
        np.full((5, 128), 1e-25, np.float32),
        np.eye(1, 128, dtype=np.float32),
        np.full((5, 128), 1e15, np.float32),
    ],
)
def test_activations_that_say_little_do_no_harm(x: Floats) -> None:
    weight, moments = weights(9, 128), moments_of(x)
    weight[3] = 0
    result = quantize_with_feedback(weight, moments)
    assert (result.floats()[3] == 0).all()
    assert np.abs(result.floats() - weight).max() < np.abs(weight).max() / 2
    assert (errors(result, weight, moments) <= errors(quantize(weight, 4), weight, moments)).all()


@pytest.mark.parametrize("size", [1e-15, 1e20, 1e38])
def test_the_size_of_weights_does_not_matter(size: float) -> None:
    weight = weights(9, 128)
    weight *= np.float32(size / np.abs(weight).max())
    floats = quantize_with_feedback(weight, moments_of(activations(128))).floats()
    assert np.abs(floats - weight).max() < size / 2


@pytest.mark.parametrize(
    ("weight", "moments", "said"),
    [
        (np.full((2, 64), np.nan, "f4"), np.eye(64, dtype="f4"), "finite numbers"),
        (np.ones((2, 64), "f4"), np.full((64, 64), np.inf, "f4"), "calibration text"),
        (np.ones((2, 64), "f4"), np.full((64, 64), np.nan, "f4"), "calibration text"),
        (np.ones((2, 100), "f4"), np.eye(100, dtype="f4"), "100 columns"),
    ],
)
def test_what_cannot_be_rounded_is_refused(weight: Floats, moments: Floats, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        quantize_with_feedback(weight, moments)
