"""Every processor that can fuse a product and a sum comes to the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from llvmlite.binding import get_host_cpu_features

from tests.kernels import bits
from tests.kernels.processors import IS_X86, environment_of

pytestmark = [
    pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled"),
    pytest.mark.skipif(
        IS_X86 and not get_host_cpu_features().get("fma"), reason="a processor before AVX2"
    ),
]

# What x86-64 with AVX2, x86-64 with AVX-512, and Arm computed. They change only when arithmetic or
# the model in the package is changed on purpose; `python -m tests.kernels.bits` prints new ones.
_EXPECTED = {
    "normalize": "4f76802d1c87f5de",
    "gelu": "3ddbe78a0d985a99",
    "gelu, tanh": "b73aebad7a8ccc9a",
    "rotate, float32": "1bd0ccdacdaaae66",
    "attend, float32": "ac61401e13fc0fbc",
    "rotate, bfloat16": "1bd0ccdacdaaae66",
    "attend, bfloat16": "9529236493235613",
    "int8": "ea6e444ba189c19d",
    "int8 scales": "46483f486fe82a13",
    "int4": "59d923c131a05346",
    "int4 scales": "f69b261529258bf0",
    "product, float32": "db4659f59a7e8eac",
    "product, bfloat16": "0f70bed11ec8d864",
    "product, int8": "e122f2b7d5ab8f4f",
    "product, int4": "6a3dc4939b5f5499",
    "cos": "7ddc3d3f41c6e250",
    "sin": "90172e6859826f2c",
    "scores, int8": "8450c27fe9110f4c",
}


def test_this_processor_computes_what_all_do() -> None:
    assert bits.digests() == _EXPECTED


def test_kernels_compiled_for_another_processor_compute_the_same(tmp_path: Path) -> None:
    processor = "haswell" if IS_X86 else "generic"  # AVX2, no AVX-512
    environment = environment_of(processor, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.bits"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout) == _EXPECTED
