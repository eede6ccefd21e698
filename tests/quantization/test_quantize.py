"""int8 and int4 are as near to the weights as they can be, and say so of themselves."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.quantization.bfloat16_arrays import bfloat16_to_float32, float32_to_bfloat16
from gpt_neox_japanese.quantization.formats import Matrix, find_matrix
from gpt_neox_japanese.quantization.int4 import unpack_int4
from gpt_neox_japanese.quantization.matmul import matmul
from gpt_neox_japanese.quantization.quantize import quantize


def weights(*size: int) -> np.ndarray:
    """Mostly small, some large, as trained matrices are."""
    return np.random.default_rng(0).standard_t(4, size).astype(np.float32)


def squared_error(weight: np.ndarray, bits: int, *, search: bool) -> float:
    error = quantize(weight, bits, search=search).floats() - weight
    return float((error.astype(np.float64) ** 2).sum())


@pytest.mark.parametrize("bits", [8, 4])
def test_searching_beats_plain_rounding_in_every_row(bits: int) -> None:
    for row in weights(20, 256):
        searched = squared_error(row[None], bits, search=True)
        assert searched <= squared_error(row[None], bits, search=False)
    weight = weights(64, 256)
    assert squared_error(weight, 4, search=True) < 0.8 * squared_error(weight, 4, search=False)


def test_plain_rounding_is_what_numpy_makes_of_it() -> None:
    weight = weights(9, 130)
    result = quantize(weight, 8, search=False)
    scales = np.abs(weight).max(axis=1) / np.float32(127)
    np.testing.assert_allclose(result.scales, scales, rtol=1e-6)
    steps = weight / result.scales[:, None]
    assert np.abs(result.numbers - steps).max() <= 0.5 + 1e-4

    weight = weights(9, 128)
    result = quantize(weight, 4, search=False)
    scales = np.abs(weight).reshape(9, 2, 64).max(axis=2) / np.float32(7)
    np.testing.assert_array_equal(result.scales, float32_to_bfloat16(scales))
    steps = weight / np.repeat(bfloat16_to_float32(result.scales), 64, axis=1)
    assert np.abs(unpack_int4(result.numbers) - np.clip(steps, -8, 7)).max() <= 0.5 + 1e-4


def test_the_side_that_reaches_farther_gets_the_integer_more() -> None:
    weight = np.linspace(0, 1, 64, dtype=np.float32)[None]
    assert (quantize(weight, 4).scales >> 15).all()  # negative
    assert not (quantize(-weight, 4).scales >> 15).any()


@pytest.mark.parametrize("bits", [8, 4])
def test_zeros_stay_zeros_and_tiny_weights_do_no_harm(bits: int) -> None:
    weight = np.zeros((3, 64), np.float32)
    weight[1] = 1e-38
    assert (quantize(weight, bits).floats() == 0).all()


@pytest.mark.parametrize(
    ("weight", "bits", "said"),
    [
        (np.full((2, 64), np.nan, np.float32), 8, "finite"),
        (np.full((2, 64), np.inf, np.float32), 4, "finite"),
        (np.zeros((2, 3, 4), np.float32), 8, "matrix"),
        (np.zeros((2, 100), np.float32), 4, "100 columns"),
        (np.zeros((2, 64), np.float32), 3, "3 bits"),
    ],
)
def test_what_cannot_be_rounded_is_refused(
    weight: NDArray[np.float32], bits: int, said: str
) -> None:
    with pytest.raises(CheckpointError, match=said):
        quantize(weight, bits)


@pytest.mark.parametrize("kind", ["float", "bfloat", "int8", "int4"])
def test_a_matrix_product_is_that_of_the_dequantised_weights(kind: str) -> None:
    matrix, x = weights(300, 192), weights(70, 192)
    weight = {
        "float": lambda: Matrix(matrix),
        "bfloat": lambda: Matrix(float32_to_bfloat16(matrix)),
        "int8": lambda: quantize(matrix, 8),
        "int4": lambda: quantize(matrix, 4),
    }[kind]()
    assert weight.shape == matrix.shape
    expected = x @ weight.floats().T
    result = matmul(x, weight, threads=2)
    assert np.linalg.norm(result - expected) < 1e-3 * np.linalg.norm(expected)
    np.testing.assert_array_equal(matmul(x[5:6], weight), result[5:6])
    np.testing.assert_array_equal(weight.floats(slice(3, 9)), weight.floats()[3:9])
    assert matmul(x[:0], weight).shape == (0, 300)


def test_a_stored_matrix_is_read_without_a_copy() -> None:
    tensors = {"a": float32_to_bfloat16(np.ones((4, 64), np.float32))}
    weight = find_matrix(tensors, "a", (4, 64))
    tensors["a"][0, 0] = 0x4000
    assert weight.format == "bfloat16"
    assert weight.floats()[0, 0] == 2
    assert weight.nbytes == 512


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, "w is missing"),
        ({"w": np.zeros((4, 63), "f4")}, r"w has shape \(4, 63\) of float32"),
        ({"w": np.zeros((4, 64), "i1")}, "w_scale is missing"),
        ({"w": np.zeros((4, 32), "i1")}, r"w has shape \(4, 32\) of int8"),
        ({"w": np.zeros((4, 64), "i1"), "w_scale": np.zeros(5, "f4")}, "w_scale has"),
        ({"w": np.zeros((4, 64), "i1"), "w_scale": np.zeros(4, "f2")}, "w_scale has"),
        ({"w": np.zeros((4, 32), "u1"), "w_scale": np.zeros((4, 1), "f4")}, "w_scale has"),
        ({"w": np.zeros((4, 64), "u1")}, r"\(4, 32\) of uint8 is expected"),
        ({"w": np.zeros((4, 64), "i8")}, "w has shape .* of int64"),
    ],
)
def test_tensors_that_fit_no_format_are_refused(
    tensors: dict[str, NDArray[Any]], said: str
) -> None:
    with pytest.raises(CheckpointError, match=said):
        find_matrix(tensors, "w", (4, 64))


def test_int4_needs_whole_groups() -> None:
    with pytest.raises(CheckpointError, match="multiple of 64"):
        find_matrix({"w": np.zeros((4, 16), np.uint8)}, "w", (4, 32))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("power", [-60, 40, 70, 100, 120])
def test_the_size_of_weights_does_not_matter(bits: int, power: int) -> None:
    weight = np.random.default_rng(0).standard_normal((3, 128), np.float32)
    weight[1] /= 1000  # a row of another size
    usual, scaled = quantize(weight, bits), quantize(weight * np.float32(2.0**power), bits)
    np.testing.assert_array_equal(usual.numbers, scaled.numbers)
    np.testing.assert_array_equal(usual.floats() * np.float32(2.0**power), scaled.floats())


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_at_the_end_of_float32_are_right_or_refused(bits: int) -> None:
    weight = np.full((2, 64), np.float32(1e-10))
    weight[1, ::2] = 1e38
    floats = quantize(weight, bits).floats()
    np.testing.assert_allclose(floats[0], weight[0], rtol=0.1)
    np.testing.assert_allclose(floats[1, ::2], weight[1, ::2], rtol=0.1)
    weight[1, 0] = np.finfo(np.float32).max
    with suppress(CheckpointError):
        assert np.isfinite(quantize(weight, bits).floats()).all()
    weight[1, 0] = np.inf
    with pytest.raises(CheckpointError, match="finite"):
        quantize(weight, bits)
