"""A small share of what the fuzzers try; `scripts/fuzzing.py` says what counts as a finding."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children get limits of Linux")


@pytest.mark.parametrize(
    ("name", "cases"),
    [("fuzz_models", 150), ("fuzz_data", 400), ("fuzz_states", 100), ("fuzz_parsers", 1000)],
)
def test_mutated_files_are_right_or_refused_with_an_error_of_ours(
    tmp_path: Path, name: str, cases: int
) -> None:
    state = tmp_path / "state.json"
    command = [sys.executable, str(SCRIPTS / name), "--cases", str(cases), "--state", str(state)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert json.loads(state.read_text())["cases"] == cases
