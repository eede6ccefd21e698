"""How threads that run one kernel together meet and share work, in compiled code.

A token of a small model takes less than half a millisecond and some thirty meetings of all threads,
so a meeting must cost about a microsecond. No thread sleeps then: it looks again and again, and
after a while lets others run between two looks.

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

__all__ = ["COUNTERS", "add", "load", "meet", "take", "wait_for"]

# Two counters that different threads change often lie in different cache lines.
STRIDE = 8
COUNTERS = STRIDE  # int64 words a counter takes

# Some 50 microseconds. A thread that yields on a busy machine is back after milliseconds only.
_LOOKS_BEFORE_YIELDING = 30_000
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
def _let_others_run(typing_context):
    """Give the processor to another thread that waits for it."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.IntType(32), [])
        function = cgutils.get_or_insert_function(builder.module, kind, _YIELD)
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), generate


@leaf
def wait_for(counters: Longs, index: Number, target: Number, patience: Number) -> bool:
    """Look at a counter until it has reached `target`, or `patience` looks were in vain.

    Args:
        counters: int64.
        index: Which of them.
        target: What it should be at least.
        patience: -1 waits for ever.
    """
    looks = 0
    while load(counters, index) < target:
        looks += 1
        if looks == patience:
            return False
        if looks > _LOOKS_BEFORE_YIELDING:
            _let_others_run()
    return True


@leaf
def meet(counters: Longs, meeting: Number, threads: Number) -> Number:
    """Wait until all threads are here. Counter 0 counts every arrival there ever was.

    Args:
        counters: int64.
        meeting: How many meetings there were before this one.
        threads: How many must come.

    Returns:
        How many meetings there have been now.
    """
    add(counters, 0, 1)
    wait_for(counters, 0, (meeting + 1) * threads, -1)
    return meeting + 1


@leaf
def take(counters: Longs, phase: Number, size: Number, total: Number) -> tuple[Number, Number]:
    """Take the next part of a piece of work: `[first, last)` of `total`, empty when all is taken.

    Args:
        counters: int64; the one of this phase is 0 before its first part is taken.
        phase: Which piece of work, from 1.
        size: How much to take.
        total: How much there is.
    """
    first = add(counters, phase * STRIDE, size)
    return min(first, total), min(first + size, total)
