"""Polynomials instead of functions of C."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from gpt_neox_japanese.inference.cpu.kernel_prefill import gelu_rows
from gpt_neox_japanese.kernels import ops


def _fit(function: Callable[[float], float], degree: int, reach: float) -> list[float]:
    """Coefficients of a polynomial that meets `function` on ±reach, the highest power first."""
    series = Chebyshev.interpolate(np.vectorize(function), degree, domain=[-reach, reach])
    return list(series.convert(kind=Polynomial).coef[::-1])


def test_the_coefficients_are_those_of_polynomials_through_exp_and_erf() -> None:
    exp = _fit(math.exp, 6, math.log(2) / 2)
    np.testing.assert_allclose(ops._EXP, exp, rtol=2e-7)
    erf = _fit(lambda t: math.erf(x := math.sqrt(8 * (t + 1)) + 1e-12) / x, 16, 1)
    np.testing.assert_allclose(ops._ERF_EVEN, erf[0::2], rtol=2e-7)
    np.testing.assert_allclose(ops._ERF_ODD, erf[1::2], rtol=2e-7)


def test_gelu_of_far_numbers_is_themselves_or_zero() -> None:
    far = np.array([[-1e9, -1e4, -8, 8, 1e4, 1e9]], np.float32)
    result = far.copy()
    gelu_rows(result, False)
    np.testing.assert_array_equal(result, np.maximum(far, 0))
