"""How threads that run one kernel together share its phases and wait for each other, compiled.

A phase is so many rows to compute. Threads take work items, some rows each, as they come free, and
the phase is complete when all rows are computed: not when all threads are there. So a thread that
the system has put aside holds nobody up, unless it has taken an item. When it comes back it finds
the others some phases ahead, or some steps; there is nothing left to take in those that it passes.

Two counters belong to a phase: the rows that were taken, and those that are computed. Both say
which step they are of, in their upper bits, and are atomic. A late thread therefore cannot take
what belongs to a step that it does not know yet, and finds every phase of an older step complete.

A token of a small model takes less than half a millisecond and some thirty phases, so waiting must
cost about a microsecond. No thread sleeps here: it spins, and after a while yields the processor
between two looks.
"""
# What generates code for Numba carries no annotations: llvmlite has none.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import sys

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from gpt_neox_japanese.kernels.compile import Longs, Number, intrinsic, leaf

__all__ = [
    "GO",
    "MAX_ROWS_OF_PHASE",
    "add",
    "close_phase",
    "complete_phase",
    "load",
    "next_work_item",
    "open_phase",
    "phase_counters",
    "spin_until",
]

# Counters that different threads change often lie in different cache lines.
_STRIDE = 8

GO = np.int64(0)
"""Word of the counters that counts steps."""

# A counter is its step, shifted, and a number of rows below it.
_STEP_SHIFT = 24
_CLOSED = (1 << _STEP_SHIFT) - 1
MAX_ROWS_OF_PHASE = 1 << (_STEP_SHIFT - 1)
"""A phase has fewer rows: what is taken may run past them by a work item."""

# Some 50 microseconds. A thread that yields on a busy machine is back after milliseconds only.
_SPINS_BEFORE_YIELDING = 30_000
_FOR_EVER = np.int64(-1)
_YIELD = "SwitchToThread" if sys.platform == "win32" else "sched_yield"


def phase_counters(phases: int) -> int:
    """How many int64 words the counters of so many phases take, with that of the steps.

    Args:
        phases: Of one step.
    """
    return (1 + 2 * phases) * _STRIDE


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
def _replace(typing_context, counters, index, expected, value):
    """Write a counter if it is as expected, and return what it was."""

    def generate(context, builder, signature, arguments):
        array, index, expected, value = arguments
        pointer = _pointer_to(context, builder, signature.args[0], array, index)
        result = builder.cmpxchg(pointer, expected, value, "acq_rel", "acquire")
        return builder.extract_value(result, 0)

    return types.int64(counters, types.int64, types.int64, types.int64), generate


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


# ---- Phases --------------------------------------------------------------------------------------


@leaf
def _taken(phase: Number) -> Number:
    return (1 + 2 * phase) * _STRIDE


@leaf
def _computed(phase: Number) -> Number:
    return (2 + 2 * phase) * _STRIDE


@leaf
def open_phase(counters: Longs, phase: Number, step: Number) -> None:
    """Let a phase of a new step have all its work before it. The step must not have begun.

    Args:
        counters: int64 [counters]; in the step before, the phase is complete.
        phase: Which, from 0.
        step: Which step.
    """
    counters[_taken(phase)] = counters[_computed(phase)] = step << _STEP_SHIFT


@leaf
def close_phase(counters: Longs, phase: Number, step: Number) -> None:
    """Let a phase of a new step be complete from the beginning.

    Args:
        counters: As in `open_phase`.
        phase: Which, from 0.
        step: Which step.
    """
    counters[_taken(phase)] = counters[_computed(phase)] = (step << _STEP_SHIFT) + _CLOSED


@leaf
def next_work_item(
    counters: Longs, phase: Number, step: Number, size: Number, rows: Number
) -> tuple[Number, Number]:
    """Take the next part of a phase's work: `[first, last)` of its rows, empty when all is taken.

    Whoever takes an item may rely on what the phases before it have written, even if it read that
    before: as long as a phase has work, no later one has begun.

    Args:
        counters: int64 [counters].
        phase: Which, from 0.
        step: Which step.
        size: How many rows to take.
        rows: How many the phase has.

    Returns:
        The first row, and the one after the last.
    """
    begin = step << _STEP_SHIFT
    taken = load(counters, _taken(phase))
    while taken < begin + rows:
        before = _replace(counters, _taken(phase), taken, taken + size)
        if before == taken:
            return taken - begin, min(taken - begin + size, rows)
        taken = before
    return rows, rows


@leaf
def complete_phase(
    counters: Longs, phase: Number, step: Number, computed: Number, rows: Number
) -> None:
    """Tell how many rows this thread has computed, and wait until all are.

    Args:
        counters: int64 [counters].
        phase: Which, from 0.
        step: Which step.
        computed: Rows of all items that this thread has taken.
        rows: How many the phase has.
    """
    if computed > 0:
        add(counters, _computed(phase), computed)
    spin_until(counters, _computed(phase), (step << _STEP_SHIFT) + rows, _FOR_EVER)
