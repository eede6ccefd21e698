"""Where compiled kernels are kept between starts, and what is said when one is compiled.

Numba's own cache has an index and numbered files, and believes both. After a power loss every start
ends with an error of `pickle`; a changed byte of machine code runs; and of two processes that
compile one function for different arguments at the same time, one may be given the other's code.
Here a file holds one function for one list of argument types, is named after everything that its
code depends on, and begins with a digest of the rest.
"""
# Numba's own functions carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import hashlib
import logging
import pickle
import uuid
from collections.abc import Callable
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import FunctionCache, NullCache
from numba.core.serialize import dumps

__all__ = ["cache_of"]

_log = logging.getLogger(__name__)
_DIGEST_BYTES = hashlib.sha256().digest_size


class _DamagedError(Exception):
    """A file is not what was written."""


def cache_of(function: Callable[..., Any], sources: str) -> FunctionCache | NullCache:
    """The place for the machine code of a function, for `Dispatcher._cache` of Numba.

    Args:
        function: What is compiled.
        sources: A digest of every file that its code depends on.

    Returns:
        Numba's interface to files beside the source, in the user's cache or in `NUMBA_CACHE_DIR`;
        or one that keeps nothing, where none of them can be written.
    """
    try:
        return _KernelCache(function, sources)
    except RuntimeError:  # neither the package's directory nor the user's cache can be written
        return _NoCache(function)


class _KernelCache(FunctionCache):
    """The files of one function. Numba finds the directory: beside the source, or the user's."""

    def __init__(self, function: Callable[..., Any], sources: str) -> None:
        super().__init__(function)
        self._function = function
        self._depends_on = (
            sources,
            self._impl.locator.get_source_stamp(),  # of the archive or program, if we are in one
            self._impl.filename_base,  # with the version of Python
            numba.__version__,
            llvmlite.__version__,
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Load what was compiled.

        Args:
            sig: Numba's types of the arguments.
            target_context: Numba's, for this processor.

        Returns:
            The function compiled for `sig`, or None if it has to be compiled now.
        """
        target_context.refresh()
        path = self._path(sig, target_context.codegen())
        try:
            return self._impl.rebuild(target_context, pickle.loads(_read(path)))  # noqa: S301
        except FileNotFoundError:
            pass
        except _DamagedError as error:
            _log.warning("gpt-neox-japanese: %s; removing it, and compiling anew", error)
            _remove(path)
        except Exception as error:  # unreadable, or of no use here: what is compiled replaces it
            _log.warning("gpt-neox-japanese: cannot use compiled code in %s: %s", path, error)
        _log_compiling(self._function, "once")
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled; a full disk or the like is no reason to stop.

        Args:
            sig: Numba's types of the arguments.
            data: Numba's result of compiling.
        """
        if not self._impl.check_cachable(data):
            return
        path = self._path(sig, data.codegen)
        try:
            self._impl.locator.ensure_cache_path()
            _write(path, dumps(self._impl.reduce(data)))
        except OSError as error:
            # Windows lets nobody replace what another process reads: then it is there already.
            if not path.exists():
                _log.warning(
                    "gpt-neox-japanese: cannot keep compiled code (%s); the next start compiles"
                    " again, unless NUMBA_CACHE_DIR names a directory with room",
                    error,
                )

    def flush(self) -> None:
        """Nothing is out of date here: what changed has another name."""

    def _path(self, sig: Any, codegen: Any) -> Path:
        # Short, because Windows takes no path of more than 260 characters: no longer than the name
        # that Python gives the module beside it.
        key = repr((self._index_key(sig, codegen), self._depends_on))
        name = hashlib.sha256(key.encode()).hexdigest()[:16]
        return Path(self.cache_path, f"{name}.nbc")


class _NoCache(NullCache):
    """Keeps nothing."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def load_overload(self, sig: Any, target_context: Any) -> None:
        """Nothing."""
        _log_compiling(
            self._function,
            "at every start: NUMBA_CACHE_DIR does not name a directory that can be written",
        )


def _log_compiling(function: Callable[..., Any], how_often: str) -> None:
    if parent_process() is None:  # the workers of a pool are many, and say nothing
        name = f"{function.__module__}.{function.__name__}".removeprefix("gpt_neox_japanese.")
        _log.warning("gpt-neox-japanese: compiling %s for this processor, %s …", name, how_often)


def _read(path: Path) -> bytes:
    """What `_write` wrote.

    Raises:
        OSError: There is no such file, or it cannot be read.
        _DamagedError: It is cut off or changed.
    """
    data = path.read_bytes()
    content = data[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != data[:_DIGEST_BYTES]:
        raise _DamagedError(f"compiled code in {path} is damaged")
    return content


def _write(path: Path, content: bytes) -> None:
    """Write a file so that others see all of it or nothing."""
    temporary = path.with_name(f"{uuid.uuid4().hex[:12]}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("gpt-neox-japanese: cannot remove it: %s", error)
