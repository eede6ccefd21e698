"""Named tuples that are passed by reference."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import pytest

from gpt_neox_japanese.kernels.compile import Floats, Number, entry, leaf
from gpt_neox_japanese.kernels.references import by_reference

pytestmark = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT),  # type: ignore[attr-defined]
    reason="nothing is compiled",
)


class _Inner(NamedTuple):
    rows: Floats


class _Outer(NamedTuple):
    is_added: bool
    number: Number
    inner: _Inner


class _Rows(NamedTuple):
    first: Floats
    second: Floats


@leaf
def _change(outer: _Outer, row: Number) -> None:
    if outer.is_added:
        outer.inner.rows[row, 1] += outer.number


@entry
def _change_rows(outer: _Outer) -> None:
    shared = by_reference(outer)
    for row in range(len(shared.inner.rows)):
        _change(shared, row)


@entry
def _first_of_both(rows: _Rows) -> Number:
    shared = by_reference(rows)
    return shared.first[0] + shared.second[0]


def test_attributes_are_those_of_the_tuple() -> None:
    rows = np.zeros((3, 2), np.float32)
    _change_rows(_Outer(True, np.float32(1.5), _Inner(rows)))
    _change_rows(_Outer(False, np.float32(9), _Inner(rows)))
    assert rows.tolist() == [[0, 1.5]] * 3


def test_a_tuple_of_equal_types_has_its_names() -> None:
    assert _first_of_both(_Rows(np.ones(2, np.float32), np.full(2, 3, np.float32))) == 4
