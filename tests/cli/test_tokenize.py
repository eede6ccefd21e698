from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.run import assert_refused, run
from tests.tokenizer.small import vocabulary


@pytest.fixture
def model(tmp_path: Path) -> Path:
    vocabulary(["吾輩", "猫", "は"]).save(tmp_path)
    return tmp_path


def test_tokens_are_shown_with_ids_and_places(model: Path) -> None:
    result = run("tokenize", "吾輩は猫", "--model", model)
    assert result.stdout == "0\t吾輩\t0-2\n2\tは\t2-3\n1\t猫\t3-4\n"


def test_ids_alone_can_be_read_back(model: Path) -> None:
    ids = run("tokenize", "猫は 한\n吾輩", "--ids", "--model", model).stdout
    assert run("detokenize", *ids.split(), "--model", model).stdout == "猫は 한\n吾輩\n"
    assert run("detokenize", "-", "--model", model, stdin=ids).stdout == "猫は 한\n吾輩\n"
    assert run("detokenize", "1,2", "--model", model).stdout == "猫は\n"


def test_json_has_ids_tokens_and_offsets(model: Path) -> None:
    result = run("tokenize", "--json", "--model", model, stdin="猫は")
    assert json.loads(result.stdout) == {
        "ids": [1, 2],
        "tokens": ["猫", "は"],
        "offsets": [[0, 1], [1, 2]],
    }


def test_text_cannot_write_control_tokens(model: Path) -> None:
    ids = run("tokenize", "<|endoftext|>", "--ids", "--model", model).stdout.split()
    assert len(ids) == len("<|endoftext|>")


def test_misuse_is_refused(model: Path) -> None:
    assert_refused(run("tokenize", "猫", "--model", model / "nowhere"), "nowhere")
    assert_refused(run("detokenize", "猫", "--model", model), "'猫' is not an id")
    assert_refused(run("detokenize", "99999", "--model", model), "99999")
    assert_refused(run("tokenize", "-", "--model", model, stdin=b"\xff"), "0xff")
