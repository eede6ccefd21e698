"""How threads that run one kernel together wait for each other and share work, in compiled code.

A token of a small model takes less than half a millisecond and some thirty barriers, so a
barrier must cost about a microsecond. No thread sleeps there: it spins, and after a while yields
the processor between two looks.

Counters are int64 arrays. They are changed and read with atomic instructions only.
"""
# What generates code for Numba carries no annotations: llvmlite has none.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import sys

from llvmlite import ir
from numba import types
from numba.core import cgutils

from gpt_neox_japanese.kernels.compile import Longs, Number, intrinsic, leaf

__all__ = ["COUNTERS", "add", "barrier", "load", "next_work_item", "spin_until"]

# Two counters that different threads change often lie in different cache lines.
STRIDE = 8
COUNTERS = STRIDE  # int64 words a counter takes

# Some 50 microseconds. A thread that yields on a busy machine is back after milliseconds only.
_SPINS_BEFORE_YIELDING = 30_000
_YIELD = "SwitchToThread" if sys.platform == "win32" else "sched_yield"


def _pointer_to(context, builder, array_type, array, index):
    struct = context.make_array(array_type)(context, builder, array)
    return cgutils.get_item_pointer(context, builder, array_type, struct, [index])


@intrinsic
def add(typing_context, counters, index, value):
    """Add to a counter and return what it was before."""

    def generate(context, builder, signature, arguments):
        array, index, value = arguments
        pointer = _pointer_to(context, builder, signature.args[0], array, index)
        return builder.atomic_rmw("add", pointer, value, "acq_rel")

    return types.int64(counters, types.int64, types.int64), generate


@intrinsic
def load(typing_context, counters, index):
    """Read a counter; what its writer wrote before is then visible too."""

    def generate(context, builder, signature, arguments):
        array, index = arguments
        pointer = _pointer_to(context, builder, signature.args[0], array, index)
        return builder.load_atomic(pointer, "acquire", 8, typ=ir.IntType(64))

    return types.int64(counters, types.int64), generate


@intrinsic
def _yield_processor(typing_context):
    """Give the processor to another thread that waits for it."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.IntType(32), [])
        function = cgutils.get_or_insert_function(builder.module, kind, _YIELD)
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), generate


@leaf
def spin_until(counters: Longs, index: Number, target: Number, max_spins: Number) -> bool:
    """Look at a counter until it has reached `target`.

    Args:
        counters: int64 [counters].
        index: Which of them.
        target: What it should be at least.
        max_spins: Give up after so many looks; -1 never does.

    Returns:
        Whether it was reached.
    """
    spins = 0
    while load(counters, index) < target:
        spins += 1
        if spins == max_spins:
            return False
        if spins > _SPINS_BEFORE_YIELDING:
            _yield_processor()
    return True


@leaf
def barrier(counters: Longs, barriers: Number, threads: Number) -> Number:
    """Wait until all threads are here. Counter 0 counts every arrival there ever was.

    Args:
        counters: int64 [counters].
        barriers: How many barriers there were before this one.
        threads: How many must come.

    Returns:
        How many barriers there have been now.
    """
    add(counters, 0, 1)
    spin_until(counters, 0, (barriers + 1) * threads, -1)
    return barriers + 1


@leaf
def next_work_item(
    counters: Longs, phase: Number, size: Number, total: Number
) -> tuple[Number, Number]:
    """Take the next part of a phase's work: `[first, last)` of `total`, empty when all is taken.

    Args:
        counters: int64 [counters]; the one of this phase is 0 before its first part is taken.
        phase: Which phase, from 1.
        size: How much to take.
        total: How much there is.

    Returns:
        The first, and the one after the last.
    """
    first = add(counters, phase * STRIDE, size)
    return min(first, total), min(first + size, total)
