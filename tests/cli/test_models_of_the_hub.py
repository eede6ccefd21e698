"""Commands take a Hub id wherever they take a model or a tokenizer."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from gpt_neox_japanese.tokenizer.codec import Codec
from tests.hub import environment_of
from tests.model.small import small_model
from tests.tokenizer.small import vocabulary

# All in one process, which is started once: each command ends it otherwise.
COMMANDS = """
import json, sys
from click.testing import CliRunner
from gpt_neox_japanese.cli import main
for command in json.loads(sys.argv[1]):
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, (command, result.output)
"""


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """someone/small: a model of the characters 猫 and 犬."""
    directory = tmp_path / "published" / "small"
    codec = Codec(vocabulary(["猫", "犬"]))
    codec.save(directory)
    small_model(codec).save_pretrained(directory)
    return directory


def test_a_hub_id_is_a_tokenizer_a_start_and_a_model(
    published: Path, hub: str, hub_requests: list[str], tmp_path: Path
) -> None:
    text, data, run = tmp_path / "a.txt", tmp_path / "data", tmp_path / "run"
    text.write_text("猫犬犬" * 100, encoding="utf-8")
    name = "someone/small"
    commands: list[list[object]] = [
        ["tokenize", "猫", "--tokenizer", name],
        ["prepare", text, "--tokenizer", name, "--held-out", 0, "--output", data],
        ["evaluate", "--model", name, "--data", text],
        ["convert", name, "--to", "int8", "--output", tmp_path / "int8"],
        [
            *("train", "--data", data, "--init-from", name, "--output", run, "--steps", 1),
            *("--sequence-length", 16, "--batch-size", 2, "--dtype", "fp32"),
        ],
    ]
    adapters = tmp_path / "adapters"
    if find_spec("peft") is not None:
        commands.append([*commands[-1], "--lora-rank", 1])
        commands[-1][commands[-1].index(run)] = adapters
    words = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMMANDS, words],
        env=environment_of(hub, tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Codec.load(data).fingerprint == Codec.load(published).fingerprint
    assert json.loads((run / "train.json").read_text(encoding="utf-8"))["init_from"] == name
    assert (tmp_path / "int8" / "vocab.txt").read_bytes() == (published / "vocab.txt").read_bytes()
    if find_spec("peft") is not None:
        adapter = json.loads((adapters / "adapter_config.json").read_text(encoding="utf-8"))
        assert adapter["base_model_name_or_path"] == name
    assert hub_requests.count("model.safetensors") == 1
    assert hub_requests.count("vocab.txt") == 1
