"""Running something in a forked process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def in_child(work: Callable[[], bool]) -> int:
    """Exit status of a forked process that runs something; 0 if that is true."""
    child = os.fork()
    if child == 0:
        status = 2
        try:
            signal.alarm(60)  # a child that hangs is killed
            status = 0 if work() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
