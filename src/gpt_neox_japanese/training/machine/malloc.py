"""Memory that is freed in one step and wanted again in the next."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the process instead of returning it to the system.

    A training step on a CPU frees hundreds of megabytes of activations and asks for them again at
    once. By default every such block comes fresh from the kernel, which clears it page by page:
    about a quarter of the whole time of a step. Elsewhere than on glibc this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
