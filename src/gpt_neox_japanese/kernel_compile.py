"""How kernels are compiled, cached and typed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import numba
import numba.extending
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Bytes",
    "Floats",
    "Ints",
    "Longs",
    "Number",
    "Shorts",
    "Trie",
    "arithmetic",
    "compiled",
    "entry",
    "intrinsic",
    "leaf",
    "overload",
]

Number: TypeAlias = Any  # int or np.int64: one machine word
Bytes: TypeAlias = NDArray[np.uint8]
Shorts: TypeAlias = NDArray[np.int16]
Ints: TypeAlias = NDArray[np.int32]
Longs: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float32]
Trie: TypeAlias = tuple[Ints, Ints, Number]

# Numba's types describe what is written, not what may then be called: one argument fewer, say.
intrinsic: Any = numba.extending.intrinsic
overload: Any = numba.extending.overload

_Function = TypeVar("_Function", bound=Callable[..., Any])

# All kernels, because they call each other across packages, and what they take constants from.
_SOURCES = ("kernels/*.py", "**/kernel*.py", "tokenizer/tables.py", "tokenizer/trie.py")


def _digest_of_sources() -> str:
    directory = Path(__file__).parent
    files = sorted(file for pattern in _SOURCES for file in directory.glob(pattern))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


_DIGEST = _digest_of_sources()


# Functions that only compiled functions call need no way in from Python.
_INNER: dict[str, Any] = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def compiled(function: _Function) -> _Function:
    """Compile a function that compiled functions call."""
    return cast(_Function, numba.njit(**_INNER)(function))


def leaf(function: _Function) -> _Function:
    """Compile a function that compiled functions call, and that makes no array.

    Arrays passed to it are not counted as referenced once more, which makes the innermost loops
    twice as fast. It may return a view of an array only to another leaf.
    """
    return cast(_Function, numba.njit(**_INNER, _nrt=False)(function))  # type: ignore[call-overload]


def arithmetic(function: _Function) -> _Function:
    """Compile a leaf that computes with floats; what is divided by zero becomes infinite.

    Every operation is rounded as it is written. The compiler may neither reorder sums nor fuse a
    product with a sum: how it would do so depends on the processor, and so would the result.
    `sums.multiply_add` is for what should be fused.
    """
    options = {**_INNER, "_nrt": False, "error_model": "numpy"}
    return cast(_Function, numba.njit(**options)(function))


def entry(function: _Function) -> _Function:
    """Compile a function that Python calls, and keep the result on disk where that is possible.

    Numba notices when the file of a cached function changes, but not when a function that it calls
    or a constant that it reads changes in another file. So the sources' digest is part of the name.
    """
    function.__qualname__ += f"_{_DIGEST}"
    try:
        return cast(_Function, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:  # neither the package's directory nor the user's cache can be written
        return cast(_Function, numba.njit(nogil=True)(function))
