from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.run import assert_refused, run
from tests.cli.test_evaluate import save_model


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model", 16)


def test_the_table_names_model_prompt_and_each_number_of_texts(checkpoint: Path) -> None:
    result = run(
        *("bench", "--model", checkpoint, "--texts", 1, "--texts", 2, "--rounds", 1),
        *("--prompt-tokens", 4, "--new-tokens", 3, "--threads", 1),
    )
    assert result.exit_code == 0, result.output
    first, *lines = result.stdout.splitlines()
    assert first.startswith(f"{checkpoint}: compiled for")
    assert any(line.startswith("a prompt of 4 tokens: ") for line in lines)
    rows = [line.split() for line in lines if line[:13].strip().isdecimal()]
    assert [row[0] for row in rows] == ["1", "2"]
    assert lines[-1].startswith("weights: ")


def test_json_holds_plain_numbers(checkpoint: Path) -> None:
    result = run(
        *("bench", "--model", checkpoint, "--texts", 2, "--rounds", 1, "--json"),
        *("--new-tokens", 3, "--threads", 1),
    )
    found = json.loads(result.stdout)
    assert found["model"] == str(checkpoint)
    assert [each["texts"] for each in found["writing"]] == [2]
    assert found["prompt"]["tokens"] > 4  # what the model reads at most, less one
    assert found["memory"]["bytes_per_token"] > 0


def test_what_the_context_cannot_hold_is_refused(checkpoint: Path) -> None:
    result = run("bench", "--model", checkpoint, "--texts", 1, "--prompt-tokens", 10**6)
    assert_refused(result, "prompt_tokens is 1000000")
