"""The end of the program, in threads that it does not wait for.

The engines are closed when the main thread and all others but daemon threads have ended. A daemon
thread that is reading a text then would fail, and Python would print why, in the last moment of a
program that ended well. It rests first, and mostly is gone then. Somebody may still wait for it,
though, in an `atexit` function: the error comes in the end.
"""

from __future__ import annotations

import threading
import time

__all__ = ["note_that_program_ends", "rest_if_program_ends"]

_SECONDS = 2.0

_program_ends = threading.Event()


def note_that_program_ends() -> None:
    """From now on daemon threads rest."""
    _program_ends.set()


def rest_if_program_ends() -> None:
    """Let the program end first, if it ends and does not wait for this thread."""
    if _program_ends.is_set() and threading.current_thread().daemon:
        time.sleep(_SECONDS)
