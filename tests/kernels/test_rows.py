"""Rows: polynomials instead of functions of C, as exact as float32 is."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.polynomial import Chebyshev, Polynomial

from gpt_neox_japanese.inference.kernel_chunk import gelu_rows, normalize_rows
from gpt_neox_japanese.kernels import rows


def _fit(function: Callable[[float], float], degree: int, reach: float) -> list[float]:
    """Coefficients of a polynomial that meets `function` on ±reach, the highest power first."""
    series = Chebyshev.interpolate(np.vectorize(function), degree, domain=[-reach, reach])
    return list(series.convert(kind=Polynomial).coef[::-1])


def test_the_coefficients_are_those_of_polynomials_through_exp_and_erf() -> None:
    exp = _fit(math.exp, 6, math.log(2) / 2)
    np.testing.assert_allclose(rows._EXP, exp, rtol=1e-7)
    erf = _fit(lambda t: math.erf(x := math.sqrt(8 * (t + 1)) + 1e-12) / x, 16, 1)
    np.testing.assert_allclose(rows._ERF_EVEN, erf[0::2], rtol=1e-7)
    np.testing.assert_allclose(rows._ERF_ODD, erf[1::2], rtol=1e-7)


def _gelu(x: float) -> float:
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


def _gelu_tanh(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("tanh", [False, True])
def test_gelu_is_off_by_two_roundings_of_its_argument_at_most(tanh: bool) -> None:
    large = [1e4, -1e4, 1e9, -1e9]
    x = np.concatenate([np.linspace(-12, 12, 10_001), large]).astype(np.float32)
    result = x[None].copy()
    gelu_rows(result, tanh)
    exact = np.array([(_gelu_tanh if tanh else _gelu)(float(each)) for each in x])
    assert (np.abs(result[0] - exact) <= 2e-7 * np.abs(x)).all()


def test_a_row_is_normalized_as_float64_does_it() -> None:
    row = np.random.default_rng(0).standard_normal((1, 100), dtype=np.float32)
    norm = np.random.default_rng(1).standard_normal((2, 100), dtype=np.float32)
    out = np.empty_like(row)
    normalize_rows(row, norm, np.float32(1e-5), out)
    wide = row.astype(np.float64)
    exact = (wide - wide.mean()) / np.sqrt(wide.var() + 1e-5) * norm[0] + norm[1]
    np.testing.assert_allclose(out, exact, rtol=1e-5, atol=1e-6)
