from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gpt_neox_japanese.cli.train import command
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.training import run
from gpt_neox_japanese.training.prepare import prepare
from gpt_neox_japanese.training.settings import Architecture, Settings
from tests.tokenizer.small import vocabulary

SMALL = ["--hidden-size", "16", "--layers", "1", "--heads", "2", "--sequence-length", "16"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    Codec(vocabulary(["猫", "犬"])).save(tmp_path / "tokenizer")
    (tmp_path / "a.txt").write_text("猫犬犬" * 100, encoding="utf-8")
    prepare([tmp_path / "a.txt"], tmp_path / "tokenizer", tmp_path / "data", workers=1)
    return tmp_path / "data"


def test_train_makes_a_model_and_says_where(data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        command,
        [
            *("--data", str(data), "--output", str(tmp_path / "run"), *SMALL, "--tokens", "128"),
            *("--batch-size", "2", "--gradient-accumulation", "2", "--save-dtype", "fp32"),
        ],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    assert result.stdout == f"the model is in {tmp_path / 'run'}\n"
    record = json.loads((tmp_path / "run" / "train.json").read_text(encoding="utf-8"))
    assert record["steps"] == 2
    config = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert (config["dtype"], config["hidden_size"]) == ("float32", 16)


def test_every_setting_has_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(run, "train", lambda *given, **named: calls.append((*given, named)) or True)
    base = ["--data", "d", "--output", "o"]
    CliRunner().invoke(command, base, catch_exceptions=False)
    CliRunner().invoke(
        command,
        [*base, "--steps", "7", "--learning-rate", "0.5", "--compile", "--model", "m", "--resume"],
        catch_exceptions=False,
    )
    assert calls == [
        (Path("d"), Path("o"), Settings(), Architecture(), {"resume": False}),
        (
            *(Path("d"), Path("o"), Settings(steps=7, learning_rate=0.5, compile=True)),
            *(Path("m"), {"resume": True}),
        ),
    ]


def test_an_interrupted_run_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "train", lambda *_, **__: False)
    result = CliRunner().invoke(command, ["--data", "d", "--output", "o"])
    assert result.exit_code == 130
    assert "--resume" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--steps", "1", "--tokens", "1"], "exclude each other"),
        (["--hidden-size", "10", "--heads", "3"], "not a multiple of --heads 3"),
        (["--steps", "0"], "0 is not in the range"),
    ],
)
def test_misuse_exits_with_2(arguments: list[str], problem: str) -> None:
    result = CliRunner().invoke(command, ["--data", "d", "--output", "o", *arguments])
    assert result.exit_code == 2
    assert problem in result.stderr
