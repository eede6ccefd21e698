"""What compiled functions that call each other compute, however their code is put together."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from numba.core.caching import NullCache

from gpt_neox_japanese.kernels.compile import Floats, Number, compiled, entry, leaf, part_of_caller

pytestmark = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT),  # type: ignore[attr-defined]
    reason="nothing is compiled",
)


@leaf
def _largest(values: Floats) -> Number:
    best = values[0]
    for value in values:
        best = max(best, value)
    return best


@compiled
def _shares(values: Floats) -> Floats:
    shares: Floats = np.empty(len(values), np.float32)
    shares[:] = values / _largest(values)
    return shares


@entry
def _sum_of_shares(values: Floats) -> Number:
    return _shares(values).sum() + _largest(values) * 0


@entry
def _twice(values: Floats) -> Number:
    return _twice_within(values) * 2


_twice_within = part_of_caller(_sum_of_shares)


@entry
def _quotient(dividend: Number, divisor: Number) -> Number:
    return dividend // divisor


@entry
def _quotient_of_sum(dividend: Number, divisor: Number) -> Number:
    return _quotient(dividend + 1, divisor)


VALUES = np.array([1, 4, 3], np.float32)


def test_functions_inside_may_make_arrays_and_call_each_other() -> None:
    assert _sum_of_shares(VALUES) == 2
    assert _twice(VALUES) == 4


def test_an_error_inside_reaches_python() -> None:
    assert _quotient_of_sum(6, 2) == 3
    with pytest.raises(ZeroDivisionError):
        _quotient_of_sum(6, 0)


def test_only_what_python_calls_has_machine_code(monkeypatch: pytest.MonkeyPatch) -> None:
    _sum_of_shares(VALUES)
    # What an earlier run has kept on disk was not put together here.
    monkeypatch.setattr(_sum_of_shares, "_cache", NullCache())
    _sum_of_shares.recompile()

    def addresses(function: Any) -> set[int]:
        return {
            result.library.get_pointer_to_function(result.fndesc.llvm_func_name)
            for result in function.overloads.values()
        }

    assert addresses(_shares) == addresses(_largest) == {0}
    assert 0 not in addresses(_sum_of_shares)


@pytest.mark.parametrize("is_enabled", [True, False])
def test_garbage_collection_is_as_it_was_after_compiling(
    is_enabled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    @entry
    def never_compiled(number: Number) -> Number:
        return number

    was_enabled = gc.isenabled()
    (gc.enable if is_enabled else gc.disable)()
    try:
        with caplog.at_level(logging.CRITICAL):
            never_compiled(1)
        assert gc.isenabled() is is_enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells")
def test_compiling_asks_for_no_memory_again_and_again() -> None:
    def page_faults() -> int:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    def deep(calls: int, function: Callable[[Any], Any]) -> Any:
        return deep(calls - 1, function) if calls else function(1)

    def add_one(number: int) -> int:
        return number + 1

    from gpt_neox_japanese.kernels.compile import _call_on_one_chunk

    def loop(_: Any) -> int:
        before = page_faults()
        for number in range(10_000):
            add_one(number)
        return page_faults() - before

    # At one of these depths the loop's calls begin a chunk of Python's stack.
    assert max(_call_on_one_chunk(lambda _, n=n: deep(n, loop), 1) for n in range(300)) < 1000
