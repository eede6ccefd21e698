"""Running something in a forked process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable


def in_child(work: Callable[[], bool]) -> int:
    """Exit status of a forked process that runs something; 0 if that is true."""
    child = _fork()
    if child == 0:
        status = 2
        try:
            signal.alarm(60)  # a child that hangs is killed
            status = 0 if work() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _fork() -> int:
    while True:
        try:
            return os.fork()
        except RuntimeError as error:
            # From Python 3.12 on filelock, which torch loads, lets one thread at a time fork.
            if "filelock" not in str(error):
                raise
            time.sleep(0.001)
