"""The end of the program, in threads that it does not wait for.

The engines are closed when the main thread and all others but daemon threads have ended. A daemon
thread that is reading a text then would fail, and Python would print why, in the last moment of a
program that ended well. It rests instead, as Python itself lets it when it takes its lock next.
"""

from __future__ import annotations

import threading

__all__ = ["note_that_program_ends", "rest_if_program_ends"]

_program_ends = threading.Event()
_never = threading.Event()


def note_that_program_ends() -> None:
    """From now on daemon threads rest."""
    _program_ends.set()


def rest_if_program_ends() -> None:
    """Wait until the process is gone, if the program ends and does not wait for this thread."""
    if _program_ends.is_set() and threading.current_thread().daemon:
        _never.wait()
