"""A small share of what the fuzzers try; `scripts/fuzzing.py` says what counts as a finding."""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

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
    assert _run(name, cases, state)["cases"] == cases


def test_a_result_tells_which_cases_ran_before_the_package_changed(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    before = _run("fuzz_parsers", 10, state)
    state.write_text(json.dumps(before | {"sources": "others", "commit": "before"}))
    after = _run("fuzz_parsers", 30, state)
    assert [(run["commit"], run["cases"]) for run in after["earlier"]] == [("before", 10)]
    assert after["cases"] == sum(after["outcomes"].values()) == 20
    assert _run("fuzz_parsers", 30, state) == after


def test_huge_numbers_are_mutated_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    change_json_text = importlib.import_module("mutations").change_json_text
    for seed in range(500):
        text, _ = change_json_text(random.Random(seed), b'{"a": 1%s}' % (b"0" * 400), ("a",))
        assert text is not None


def _run(name: str, cases: int, state: Path) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPTS / name), "--cases", str(cases), "--state", str(state)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result: dict[str, Any] = json.loads(state.read_text())
    return result
