"""Compiled functions that are called by their addresses."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from gpt_neox_japanese.kernels.compile import Floats, Number, entry
from gpt_neox_japanese.kernels.function_addresses import address_of, call_at

pytestmark = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT),  # type: ignore[attr-defined]
    reason="nothing is compiled",
)


@entry
def _write_quotients(values: Floats, divisor: Number, out: Floats) -> None:
    for i in range(len(values)):
        out[i] = int(values[i]) // divisor


@entry
def _call(address: Number, values: Floats, divisor: Number, out: Floats) -> None:
    call_at(address, (values, divisor, out))


def test_a_function_is_called_by_its_address() -> None:
    values, out = np.array([9, 7, 4], np.float32), np.zeros(3, np.float32)
    address = address_of(_write_quotients, values, 1, out)
    assert address == address_of(_write_quotients, out, 5, values)
    _call(address, values, 2, out)
    assert out.tolist() == [4, 3, 2]


def test_its_errors_reach_python() -> None:
    values, out = np.ones(3, np.float32), np.zeros(3, np.float32)
    address = address_of(_write_quotients, values, 1, out)
    with pytest.raises(ZeroDivisionError):
        _call(address, values, 0, out)
