"""The kernels give what their twins in NumPy give, and a row does not notice its neighbours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from gpt_neox_japanese.kernels.constants import GROUP, QMAX
from gpt_neox_japanese.kernels.products import gemv as kernel
from gpt_neox_japanese.quantization.bfloat16_arrays import bfloat16_to_float32, float32_to_bfloat16
from gpt_neox_japanese.quantization.int4 import pack_int4, unpack_int4
from tests.kernels.processors import OLDEST, environment_of
from tests.quantization import numpy_twin

ROWS, OUTPUTS = 13, 41  # eight, four and one
COLUMNS = (1, 15, 64, 100, 2560, 8260)

Product = Callable[[NDArray[np.float32], int, int], NDArray[np.float32]]


def random(*size: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(size, dtype=np.float32)


def int8_weights(columns: int) -> NDArray[np.int8]:
    return np.random.default_rng(1).integers(-127, 128, (OUTPUTS, columns), dtype=np.int8)


def int4_weights(columns: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    values = np.random.default_rng(1).integers(-8, 8, (OUTPUTS, columns))
    scales = np.abs(random(OUTPUTS, columns // GROUP)) + 1
    return pack_int4(values), float32_to_bfloat16(scales)


def quantized(x: NDArray[np.float32]) -> tuple[NDArray, NDArray, NDArray]:
    rows, columns = x.shape
    q = np.empty((rows, columns), np.int16)
    scales = np.empty(rows, np.float32)
    corrections = np.empty((rows, -(-columns // GROUP)), np.int32)
    kernel.quantize_rows(x, q, scales, corrections)
    return q, scales, corrections


def product(kind: str, columns: int) -> Product:
    """A function of activations, first and last output."""
    weights = random(OUTPUTS, columns, seed=1)
    bits = float32_to_bfloat16(weights)
    rows, scales = int8_weights(columns), np.abs(random(OUTPUTS))
    groups = int4_weights(columns) if kind == "int4" else None

    def run(x: NDArray[np.float32], first: int, last: int) -> NDArray[np.float32]:
        out = np.full((len(x), OUTPUTS), 7, np.float32)
        if kind == "float":
            kernel.gemv_float32(weights, x, out, first, last)
        elif kind == "bfloat":
            kernel.gemv_bfloat16(bits, x, out, first, last)
        elif kind == "int8":
            q, x_scales, _ = quantized(x)
            kernel.gemv_int8(rows, scales, q, x_scales, out, first, last)
        else:
            kernel.gemv_int4(*groups, *quantized(x), out, first, last)
        return out

    return run


@pytest.mark.parametrize("kind", ["float", "bfloat", "int8", "int4"])
@pytest.mark.parametrize("columns", COLUMNS)
def test_a_product_is_the_same_whatever_is_computed_beside_it(kind: str, columns: int) -> None:
    if kind == "int4":
        columns = -(-columns // GROUP) * GROUP
    x, run = random(ROWS, columns), product(kind, columns)
    alone = np.concatenate([run(x[row : row + 1], 0, OUTPUTS) for row in range(ROWS)])
    for rows in range(2, ROWS + 1):
        for first, last in ((0, OUTPUTS), (3, 40), (32, 33), (5, 5)):
            out = run(x[:rows], first, last)
            np.testing.assert_array_equal(out[:, first:last], alone[:rows, first:last])
            assert (out[:, :first] == 7).all()
            assert (out[:, last:] == 7).all()


@pytest.mark.parametrize("columns", COLUMNS)
def test_float_products_are_near_those_of_float64(columns: int) -> None:
    x, weights = random(3, columns), random(OUTPUTS, columns, seed=1)
    rounded = bfloat16_to_float32(float32_to_bfloat16(weights))
    for kind, exact in (("float", weights), ("bfloat", rounded)):
        error = product(kind, columns)(x, 0, OUTPUTS) - numpy_twin.gemv_float32(exact, x)
        size = np.abs(x).astype(np.float64) @ np.abs(exact).T
        assert (np.abs(error) <= size * 2.0**-24 * (2 + columns / 16)).all()


@pytest.mark.parametrize("columns", COLUMNS)
def test_int8_products_are_exact(columns: int) -> None:
    x, weights, scales = random(ROWS, columns), int8_weights(columns), np.abs(random(OUTPUTS))
    q, x_scales, _ = quantized(x)
    expected = numpy_twin.gemv_int8(weights, scales, q, x_scales)
    np.testing.assert_array_equal(product("int8", columns)(x, 0, OUTPUTS), expected)


@pytest.mark.parametrize("columns", [64, 128, 2560, 8256])
def test_int4_products_are_those_of_the_twin(columns: int) -> None:
    x = random(ROWS, columns)
    q, x_scales, _ = quantized(x)
    expected = numpy_twin.gemv_int4(*int4_weights(columns), q, x_scales)
    np.testing.assert_array_equal(product("int4", columns)(x, 0, OUTPUTS), expected)


@pytest.mark.parametrize("rows", [1, 4, 8])
def test_the_largest_int4_sums_do_not_overflow(rows: int) -> None:
    columns = 40_960
    weights = pack_int4(np.full((1, columns), -8, np.int8))
    scales = np.full((1, columns // GROUP), float32_to_bfloat16(np.float32([204]))[0])
    q = np.full((rows, columns), QMAX, np.int16)
    corrections = np.full((rows, columns // GROUP), -8 * GROUP * QMAX, np.int32)
    one, out = np.ones(rows, np.float32), np.empty((rows, 1), np.float32)
    kernel.gemv_int4(weights, scales, q, one, corrections, out, 0, 1)
    assert (out == np.float32(-8 * 204 * QMAX * columns)).all()


def test_a_row_of_int4_may_have_scales_of_any_size() -> None:
    columns, sizes = 192, np.float32([1e-30, 1e-20, 1, 255, 1e30])
    x, values = random(9, columns), np.random.default_rng(1).integers(-8, 8, (5, columns))
    scales = float32_to_bfloat16(np.stack([sizes, -sizes, sizes / 300], axis=1))
    out = np.empty((9, 5), np.float32)
    packed, (q, x_scales, corrections) = pack_int4(values), quantized(x)
    for rows in (1, 4, 9):
        inputs = q[:rows], x_scales[:rows], corrections[:rows]
        kernel.gemv_int4(packed, scales, *inputs, out[:rows], 0, 5)
        expected = numpy_twin.gemv_int4(packed, scales, *inputs[:2])
        np.testing.assert_array_equal(out[:rows], expected)
    weights = values * np.repeat(bfloat16_to_float32(scales), GROUP, axis=1).astype(np.float64)
    rounded = q * x_scales[:, None].astype(np.float64)
    size = np.abs(rounded).sum(axis=1)[:, None] * np.abs(weights).max(axis=1)
    assert (np.abs(out - rounded @ weights.T) <= size / 800).all()


def test_a_scale_that_is_no_number_makes_its_own_output_nan() -> None:
    packed, scales = int4_weights(128)
    scales[3, 1], scales[7, 0] = float32_to_bfloat16(np.float32([np.inf, np.nan]))
    for rows in (1, 3, 8):
        out = np.empty((rows, OUTPUTS), np.float32)
        kernel.gemv_int4(packed, scales, *quantized(random(rows, 128)), out, 0, OUTPUTS)
        assert np.isnan(out[:, [3, 7]]).all()
        assert np.isfinite(np.delete(out, [3, 7], axis=1)).all()


@pytest.mark.parametrize("rows", [1, 8])
def test_the_largest_int8_sums_do_not_overflow(rows: int) -> None:
    columns = 40_000
    weights = np.full((1, columns), 127, np.int8)
    q = np.full((rows, columns), QMAX, np.int16)
    one, out = np.ones(rows, np.float32), np.empty((rows, 1), np.float32)
    kernel.gemv_int8(weights, one[:1], q, one, out, 0, 1)
    assert (out == np.float32(127 * QMAX * columns)).all()


@pytest.mark.parametrize("columns", COLUMNS)
def test_activations_are_rounded_as_the_twin_does(columns: int) -> None:
    x = random(ROWS, columns)
    x[1] *= 1e-20
    x[2] = 0
    x[3] *= 1e-35
    for result, expected in zip(quantized(x), numpy_twin.quantize_rows(x), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_activations_that_are_no_numbers_make_their_own_row_nan() -> None:
    x = random(4, 100)
    x[1, 3], x[2, 5] = np.nan, -np.inf
    out = product("int8", 100)(x, 0, OUTPUTS)
    assert np.isnan(out[1:3]).all()
    assert np.isfinite(out[[0, 3]]).all()
    for result, expected in zip(quantized(x), numpy_twin.quantize_rows(x), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_nibbles_come_back() -> None:
    values = np.random.default_rng(0).integers(-8, 8, (5, 192)).astype(np.int8)
    packed = pack_int4(values)
    assert packed.shape == (5, 96)
    np.testing.assert_array_equal(unpack_int4(packed), values)


_OTHER = """
import sys
import numba
import numpy as np
from tests.kernels.products.test_gemv import ROWS, OUTPUTS, product, random
results = [product(k, n)(random(ROWS, n), 0, OUTPUTS) for k, n in (("int8", 2500), ("int4", 2560))]
np.save(sys.argv[1], np.stack(results))
"""


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
def test_other_processors_come_to_the_same_bits(tmp_path: Path) -> None:
    environment = environment_of(OLDEST, tmp_path)
    file = tmp_path / "results.npy"
    subprocess.run([sys.executable, "-c", _OTHER, str(file)], env=environment, check=True)
    kinds = (("int8", 2500), ("int4", 2560))
    ours = [product(kind, n)(random(ROWS, n), 0, OUTPUTS) for kind, n in kinds]
    np.testing.assert_array_equal(np.load(file), np.stack(ours))
