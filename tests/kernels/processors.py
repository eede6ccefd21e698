"""Compiling kernels for a processor that is not this one."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

IS_X86 = platform.machine() in ("x86_64", "AMD64")

# Without features, x86-64 has neither AVX2 nor fused multiply-adds. `generic` is any other's.
OLDEST = "x86-64" if IS_X86 else "generic"


def environment_of(processor: str, cache: Path) -> dict[str, str]:
    """The environment of a process that compiles for a processor, as LLVM names it.

    What it compiles goes into a directory of its own, and it imports what this process can.
    """
    return os.environ | {
        "NUMBA_CPU_NAME": processor,
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(cache),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
