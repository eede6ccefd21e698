"""Every processor that can fuse a product and a sum comes to the same bits."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from llvmlite.binding import get_host_cpu_features

from tests.kernels import bits

_X86 = platform.machine() in ("x86_64", "AMD64")

pytestmark = [
    pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled"),
    pytest.mark.skipif(
        _X86 and not get_host_cpu_features().get("fma"), reason="a processor before AVX2"
    ),
]

# What x86-64 with AVX2, x86-64 with AVX-512, and Arm computed. They change only when arithmetic or
# the model in the package is changed on purpose; `python -m tests.kernels.bits` prints new ones.
_EXPECTED = {
    "normalize": "47218490c0aec863",
    "gelu": "b9ae49a8dc8641b9",
    "gelu, tanh": "ca74a2e18835519e",
    "rotate, float32": "b97accc979476ea1",
    "attend, float32": "0bcb0e4247c001be",
    "rotate, bfloat16": "b97accc979476ea1",
    "attend, bfloat16": "9c82430db297762f",
    "int8": "bf1cbe4aee0719d1",
    "int8 scales": "eba4ad89e407b5e9",
    "int4": "219ece7d73149ef2",
    "int4 scales": "b42e31f8bc02768a",
    "product, float32": "4b19076f2684353e",
    "product, bfloat16": "c41578406d756a52",
    "product, int8": "167e57a2b420afcc",
    "product, int4": "94b9f90188bc6b1e",
    "cos": "7ddc3d3f41c6e250",
    "sin": "90172e6859826f2c",
    "scores, int8": "dae72a546d897216",
}


def test_this_processor_computes_what_all_do() -> None:
    assert bits.digests() == _EXPECTED


def test_kernels_compiled_for_another_processor_compute_the_same(tmp_path: Path) -> None:
    environment = os.environ | {
        "NUMBA_CPU_NAME": "haswell" if _X86 else "generic",  # AVX2, no AVX-512
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.bits"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout) == _EXPECTED
