"""Products with many rows have the bits of those with one row."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from gpt_neox_japanese.kernels.constants import GROUP, QMAX
from gpt_neox_japanese.kernels.products import gemm
from gpt_neox_japanese.quantization.bfloat16_arrays import float32_to_bfloat16
from gpt_neox_japanese.quantization.int4 import pack_int4
from tests.kernels.processors import OLDEST, environment_of
from tests.kernels.products.test_gemv import (
    OUTPUTS,
    Product,
    int4_weights,
    int8_weights,
    quantized,
    random,
)
from tests.kernels.products.test_gemv import product as gemv_product
from tests.quantization import numpy_twin

COLUMNS = (1, 15, 64, 100, 513, 2560)
KINDS = ("float", "bfloat", "int8", "int4")


def packed(x: NDArray[Any]) -> NDArray[Any]:
    """By the kernel, into memory that holds other numbers."""
    memory = np.full(gemm.packed_size(*x.shape), 77, x.dtype)
    pack = gemm.pack_floats if x.dtype == np.float32 else gemm.pack_integers
    for first in range(0, len(x), 2 * gemm.PANEL_ROWS):  # as threads do
        pack(x, memory, first, min(first + 2 * gemm.PANEL_ROWS, len(x)))
    return memory


def product(kind: str, columns: int) -> Product:
    """A function of activations, first and last output."""
    weights = random(OUTPUTS, columns, seed=1)
    bits = float32_to_bfloat16(weights)
    rows, scales = int8_weights(columns), np.abs(random(OUTPUTS))
    groups = int4_weights(columns) if kind == "int4" else None

    def run(x: NDArray[np.float32], first: int, last: int) -> NDArray[np.float32]:
        out = np.full((len(x), OUTPUTS), 7, np.float32)
        if kind == "float":
            gemm.gemm_float32(weights, packed(x), out, first, last)
        elif kind == "bfloat":
            gemm.gemm_bfloat16(bits, packed(x), out, first, last)
        else:
            q, x_scales, _ = quantized(x)
            if kind == "int8":
                gemm.gemm_int8(rows, scales, packed(q), x_scales, out, first, last)
            else:
                gemm.gemm_int4(*groups, packed(q), x_scales, out, first, last)
        return out

    return run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("columns", COLUMNS)
def test_a_row_has_the_bits_that_it_has_alone(kind: str, columns: int) -> None:
    if kind == "int4":
        columns = -(-columns // GROUP) * GROUP
    x, run, alone = random(150, columns), product(kind, columns), gemv_product(kind, columns)
    expected = np.concatenate([alone(x[row : row + 1], 0, OUTPUTS) for row in range(len(x))])
    for rows in (1, 9, 16, 17, 33, 150):
        for first, last in ((0, OUTPUTS), (3, 40), (32, 33), (5, 5)):
            out = run(x[:rows], first, last)
            np.testing.assert_array_equal(out[:, first:last], expected[:rows, first:last])
            assert (out[:, :first] == 7).all()
            assert (out[:, last:] == 7).all()


def test_integer_products_are_those_of_the_twin() -> None:
    x = random(20, 8256)
    q, x_scales, _ = quantized(x)
    weights, scales = int8_weights(8256), np.abs(random(OUTPUTS))
    int8 = numpy_twin.gemv_int8(weights, scales, q, x_scales)
    np.testing.assert_array_equal(product("int8", 8256)(x, 0, OUTPUTS), int8)
    int4 = numpy_twin.gemv_int4(*int4_weights(8256), q, x_scales)
    np.testing.assert_array_equal(product("int4", 8256)(x, 0, OUTPUTS), int4)


def test_the_largest_int8_sums_do_not_overflow() -> None:
    columns = 40_000
    weights, q = np.full((1, columns), 127, np.int8), np.full((9, columns), QMAX, np.int16)
    one, out = np.ones(9, np.float32), np.empty((9, 1), np.float32)
    gemm.gemm_int8(weights, one[:1], packed(q), one, out, 0, 1)
    assert (out == np.float32(127 * QMAX * columns)).all()


def test_the_largest_int4_sums_do_not_overflow() -> None:
    columns = 40_960
    weights = pack_int4(np.full((1, columns), -8, np.int8))
    scales = np.full((1, columns // GROUP), float32_to_bfloat16(np.float32([204]))[0])
    q, one = np.full((9, columns), QMAX, np.int16), np.ones(9, np.float32)
    out = np.empty((9, 1), np.float32)
    gemm.gemm_int4(weights, scales, packed(q), one, out, 0, 1)
    assert (out == np.float32(-8 * 204 * QMAX * columns)).all()


def test_a_row_that_is_no_number_leaves_the_others_as_they_are() -> None:
    x = random(20, 100)
    x[3, 5], x[17, 99] = np.nan, np.inf
    for kind in ("float", "bfloat", "int8"):
        out = product(kind, 100)(x, 0, OUTPUTS)
        fine = [row for row in range(20) if row not in (3, 17)]
        expected = product(kind, 100)(x[fine], 0, OUTPUTS)
        np.testing.assert_array_equal(out[fine], expected)
        assert not np.isfinite(out[[3, 17]]).any()


_OTHER = """
import sys
import numpy as np
from tests.kernels.products.test_gemm import OUTPUTS, product, random
results = [product(k, n)(random(20, n), 0, OUTPUTS) for k, n in (("int8", 2500), ("int4", 2560))]
np.save(sys.argv[1], np.stack(results))
"""


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
def test_other_processors_come_to_the_same_bits(tmp_path: Path) -> None:
    environment = environment_of(OLDEST, tmp_path)
    file = tmp_path / "results.npy"
    subprocess.run([sys.executable, "-c", _OTHER, str(file)], env=environment, check=True)
    kinds = (("int8", 2500), ("int4", 2560))
    ours = [product(kind, n)(random(20, n), 0, OUTPUTS) for kind, n in kinds]
    np.testing.assert_array_equal(np.load(file), np.stack(ours))
