"""A lock that a process has on a file until it ends, however it ends.

filelock, which downloads wait with, would not do: it cannot tell a lock that is taken from a file
system that has none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["locked_file"]

# A link would be followed to a file that is somebody's.
_OPEN = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _release(descriptor: int, file: Path) -> None:
        os.close(descriptor)
        with suppress(PermissionError):  # a process that came meanwhile has it open
            file.unlink(missing_ok=True)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _release(descriptor: int, file: Path) -> None:
        file.unlink(missing_ok=True)  # first: later it may be that of another process
        os.close(descriptor)


@contextmanager
def locked_file(file: Path) -> Iterator[bool]:
    """Make a file, have its lock during the block, and remove it.

    Where the file system has no locks nobody is kept out. The file that a killed process leaves
    is in nobody's way.

    Args:
        file: Made for this only, or left by a process that was killed.

    Yields:
        False if another process has the lock; the file stays then.

    Raises:
        OSError: The file cannot be made.
    """
    descriptor = os.open(file, _OPEN, 0o666)
    if not _take(descriptor, file):
        os.close(descriptor)
        yield False
        return
    try:
        yield True
    finally:
        _release(descriptor, file)


def _take(descriptor: int, file: Path) -> bool:
    try:
        _lock(descriptor)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # no locks: ENOLCK, ENOSYS and ENOTSUP are said
        return True
    # Who had it may have removed it before it was locked here, and a third may have made another.
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False
