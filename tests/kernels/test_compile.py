"""Which processor kernels are compiled for, and what is said of it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numba
import pytest

pytestmark = [
    pytest.mark.skipif(
        bool(numba.config.DISABLE_JIT),  # type: ignore[attr-defined]
        reason="nothing is compiled",
    ),
    pytest.mark.skipif(
        platform.machine() not in ("x86_64", "AMD64"), reason="names processors of x86-64"
    ),
]

_PROBE = """
import numpy as np
from gpt_neox_japanese.kernels.compile import processor
from gpt_neox_japanese.kernels.products.gemv import gemv_float32
rows = np.ones((8, 64), np.float32)
gemv_float32(rows, rows, np.empty((8, 8), np.float32), 0, 8)
(code,) = gemv_float32.inspect_asm().values()
widest = [name for name, registers in (("avx512", "%zmm"), ("avx", "%ymm")) if registers in code]
print(processor(), *widest[:1], sep=",")
"""


def compiled_for(tmp_path: Path, **environment: str) -> list[str]:
    """What is said of the processor, and which vectors the code really has."""
    result = subprocess.run(
        [sys.executable, "-c", _PROBE],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip().split(",")


def test_processor_that_is_named_has_the_features_of_its_name(tmp_path: Path) -> None:
    assert compiled_for(tmp_path, NUMBA_CPU_NAME="nehalem") == ["nehalem"]


def test_features_that_are_given_are_used_and_said(tmp_path: Path) -> None:
    given = {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+avx2"}
    assert compiled_for(tmp_path, **given) == ["nehalem with +avx2", "avx"]


def test_processor_of_unknown_name_gets_what_every_one_can(tmp_path: Path) -> None:
    assert compiled_for(tmp_path, NUMBA_CPU_NAME="no-such") == ["no-such"]
