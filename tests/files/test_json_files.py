"""What JSON of strangers may hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.files.json_files import parse_json, read_object


@pytest.mark.parametrize("value", ["😀", "\\ud83d", "\\\\", '"', "猫\n", "\ud800x"[1:], "a😀\\u"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_every_text_is_read_as_json_reads_it(value: str, ascii_only: bool) -> None:
    text = json.dumps({value: [value]}, ensure_ascii=ascii_only)
    assert parse_json(text) == {value: [value]}


@pytest.mark.parametrize("value", ["\ud83d", "\ude00\ud83d", "😀\ude00", "\\\ud83d", "\ud83dx"])
def test_half_of_a_surrogate_pair_is_refused_with_its_line(tmp_path: Path, value: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"a": 1, "b": {value: 2}}, indent=1), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"surrogate pair: line 4"):
        read_object(path)
