"""How kernels are compiled, cached and typed, and for which processor."""

from __future__ import annotations

import gc
import hashlib
import os
import platform
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import numba
import numba.extending
import numpy as np
from numba.core import compiler_lock
from numba.core.registry import cpu_target
from numpy.typing import NDArray

from gpt_neox_japanese.kernels.code_libraries import EntryCompiler, InnerCompiler
from gpt_neox_japanese.kernels.compile_cache import cache_of

__all__ = [
    "Bytes",
    "Floats",
    "Ints",
    "Longs",
    "Number",
    "Shorts",
    "arithmetic",
    "compiled",
    "entry",
    "intrinsic",
    "leaf",
    "overload",
    "part_of_caller",
    "processor",
]

Number: TypeAlias = Any  # int or np.int64: one machine word
Bytes: TypeAlias = NDArray[np.uint8]
Shorts: TypeAlias = NDArray[np.int16]
Ints: TypeAlias = NDArray[np.int32]
Longs: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float32]

# Numba's types describe what is written, not what may then be called: one argument fewer, say.
intrinsic: Any = numba.extending.intrinsic
_overload: Any = numba.extending.overload
_njit: Any = numba.njit
_config: Any = numba.config
_lock: Any = compiler_lock.global_compiler_lock

_Function = TypeVar("_Function", bound=Callable[..., Any])

# All kernels, because they call each other across packages, and what they take constants from.
_SOURCES = (
    "**/kernels/**/*.py",
    "**/kernel_*.py",
    "inference/network.py",
    "tokenizer/encoding/normalization.py",
    "tokenizer/encoding/python_encoder.py",
)


def _digest_of_sources() -> str:
    directory = Path(__file__).parents[1]
    files = sorted(file for pattern in _SOURCES for file in directory.glob(pattern))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


_DIGEST = _digest_of_sources()

# What every processor of this kind has: all that is known of one whose name LLVM does not know.
_BASE = "+64bit,+cmov,+cx8,+fxsr,+sse2" if platform.machine() in ("x86_64", "AMD64") else ""

# A processor that NUMBA_CPU_NAME names has the features of its name. Numba would add those of this
# machine, and so compile for an old processor what only this one can run.
if _config.CPU_NAME and _config.CPU_FEATURES is None:
    _config.CPU_FEATURES = _BASE

# Of LLVM's names for what multiplies integers, the best first.
_INSTRUCTIONS = ("avx512vnni", "avxvnni", "avx512bw", "avx2", "dotprod", "neon")


def processor() -> str:
    """What kernels are compiled for.

    Returns:
        The processor's name in LLVM, and the best of its instructions that multiply integers.
    """
    _, name, features = cpu_target.target_context.codegen().magic_tuple()
    if features in ("", _BASE):  # no more and no less than the name says
        return str(name)
    if features == _config.CPU_FEATURES:  # what the user adds and takes away
        return f"{name} with {features}"
    enabled = features.split(",")
    best = [instruction for instruction in _INSTRUCTIONS if f"+{instruction}" in enabled][:1]
    return " with ".join([name, *best])


# A process that is forked has none of the other threads, and so none that could release the lock.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )

# Functions that only compiled functions call need no way in from Python. All say whether they count
# references: of those that do not say it Numba would take it that they do as their callers do.
_INNER: dict[str, Any] = {
    "nogil": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "pipeline_class": InnerCompiler,
}

_ENTRY: dict[str, Any] = {
    "nogil": True,
    "no_cfunc_wrapper": True,
    "pipeline_class": EntryCompiler,
}

overload: Any = partial(_overload, jit_options=_INNER)
"""As Numba's, of functions that only compiled functions call."""


def compiled(function: _Function) -> _Function:
    """Compile a function that compiled functions call.

    Args:
        function: Written for Numba.

    Returns:
        What other compiled functions call; Python cannot, unless JIT is off.
    """
    return cast(_Function, _njit(**_INNER, _nrt=True)(function))


def leaf(function: _Function) -> _Function:
    """Compile a function that compiled functions call, and that makes no array.

    Arrays passed to it are not counted as referenced once more, which makes the innermost loops
    twice as fast. It may return a view of an array only to another leaf.

    Args:
        function: Written for Numba.

    Returns:
        What other compiled functions call; Python cannot, unless JIT is off.
    """
    return cast(_Function, _njit(**_INNER, _nrt=False)(function))


def arithmetic(function: _Function) -> _Function:
    """Compile a leaf that computes with floats; what is divided by zero becomes infinite.

    Every operation is rounded as it is written. The compiler may neither reorder sums nor fuse a
    product with a sum: how it would do so depends on the processor, and so would the result.
    `reductions.multiply_add` is for what should be fused.

    Args:
        function: Written for Numba.

    Returns:
        What other compiled functions call; Python cannot, unless JIT is off.
    """
    options = {**_INNER, "_nrt": False, "error_model": "numpy"}
    return cast(_Function, _njit(**options)(function))


def entry(function: _Function) -> _Function:
    """Compile a function that Python calls, and keep the result on disk where that is possible.

    Numba notices when the file of a cached function changes, but not when a function that it calls
    or a constant that it reads changes in another file. So the cache is told of all sources.

    Args:
        function: Written for Numba.

    Returns:
        What Python and compiled functions call; it is compiled, or loaded, at its first call with
        arguments of these types.
    """
    dispatcher = _njit(**_ENTRY, _nrt=True)(function)
    if not _config.DISABLE_JIT:
        dispatcher._cache = cache_of(function, _DIGEST)
        dispatcher.compile = _compile_in_thread(dispatcher.compile)
    return cast(_Function, dispatcher)


def part_of_caller(function: _Function) -> _Function:
    """What compiled functions call instead of an entry, without what Python calls it by.

    Args:
        function: An `entry`.

    Returns:
        As of `compiled`.
    """
    return compiled(getattr(function, "py_func", function))


def _compile_in_thread(compile_for: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Let Numba compile, or load what it compiled, in a thread that no interrupt reaches.

    Python interrupts the main thread alone. Numba, interrupted, forgets what it was about to
    register, and could compile nothing more until the process ends. Like this, Ctrl-C ends the wait
    and the work goes on: whoever calls next waits for it, and the next start finds it.
    """

    def compile_alone(signature: Any) -> Any:
        with _lock, _without_garbage_collection():
            return _call_on_one_chunk(compile_for, signature)

    def compile_apart(signature: Any) -> Any:
        # Whoever holds the lock is compiling already, and would wait for itself.
        if _lock.is_locked():
            return compile_for(signature)
        if threading.current_thread() is not threading.main_thread():
            return compile_alone(signature)
        result: Future[Any] = Future()

        def work() -> None:
            try:
                result.set_result(compile_alone(signature))
            except BaseException as error:
                result.set_exception(error)

        try:
            threading.Thread(target=work, name="compile").start()
        except RuntimeError:  # no more threads, or the program ends
            return compile_alone(signature)
        return result.result()

    return compile_apart


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Look for no garbage: Numba makes so many objects that it would take a tenth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _call_on_one_chunk(function: Callable[[Any], Any], argument: Any) -> Any:
    return function(argument)


# Python keeps its functions' variables in chunks of 16 KB, and gives a chunk back to the system as
# soon as it is empty. A loop that calls functions at the end of a chunk asks for a new one each
# time: Numba, which calls deep, 180,000 times before the first text, a tenth of all time. Behind a
# function that takes half a megabyte there is a chunk with as much room again.
_call_on_one_chunk.__code__ = _call_on_one_chunk.__code__.replace(co_stacksize=1 << 16)
