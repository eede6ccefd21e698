from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from gpt_neox_japanese.cli import main
from gpt_neox_japanese.cli.train import command
from gpt_neox_japanese.errors import TrainingError
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.training import run
from gpt_neox_japanese.training.data.prepare import prepare
from gpt_neox_japanese.training.settings import Architecture, Settings, record_settings
from tests.cli.run import assert_refused
from tests.tokenizer.small import vocabulary

NOTHING = {"tokenizer": None, "held_out": None}
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
    assert "a model of " in result.stderr
    assert re.search(
        r"it takes about .* of memory \(.* free\); .* on disk \(.* free\)", result.stderr
    )
    record = json.loads((tmp_path / "run" / "train.json").read_text(encoding="utf-8"))
    assert record["steps"] == 2
    config = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert (config["dtype"], config["hidden_size"]) == ("float32", 16)


def test_init_from_trains_a_model_on_and_makes_no_new_one(data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    options = ["--data", str(data), "--sequence-length", "16", "--steps", "1", "--dtype", "fp32"]
    made = CliRunner().invoke(command, [*options, "--output", str(first), *SMALL])
    assert made.exit_code == 0, made.output
    named = ["--init-from", str(first), "--learning-rate", "0", "--output", str(second)]
    result = CliRunner().invoke(command, [*options, *named])
    assert result.exit_code == 0, result.output
    weights = [(run / "model.safetensors").read_bytes() for run in (first, second)]
    assert weights[0] == weights[1]
    record = json.loads((second / "train.json").read_text(encoding="utf-8"))
    assert record["init_from"] == str(first)


def test_every_setting_has_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(run, "train", lambda *given, **named: calls.append((*given, named)) or True)
    base = ["--data", "d", "--output", "o"]
    CliRunner().invoke(command, base, catch_exceptions=False)
    CliRunner().invoke(
        command,
        [
            *base,
            "--steps",
            "7",
            "--learning-rate",
            "0.5",
            "--compile",
            "--init-from",
            "m",
            "--resume",
        ],
        catch_exceptions=False,
    )
    assert calls == [
        (Path("d"), Path("o"), Settings(), Architecture(), {**NOTHING, "resume": False}),
        (
            *(Path("d"), Path("o"), Settings(steps=7, learning_rate=0.5, compile=True)),
            *("m", {**NOTHING, "resume": True}),
        ),
    ]


def test_help_says_that_a_file_may_give_what_is_required() -> None:
    shown = " ".join(CliRunner().invoke(command, ["--help"]).stdout.split())
    assert shown.count("[required, here or in --config]") == 2
    assert "[required]" not in shown


def test_an_interrupted_run_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "train", lambda *_, **__: False)
    result = CliRunner().invoke(command, ["--data", "d", "--output", "o"])
    assert result.exit_code == 130
    assert "--resume" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--steps", "1", "--tokens", "1"], "--steps and --tokens exclude each other"),
        (["--epochs", "1", "--tokens", "1"], "--tokens and --epochs exclude each other"),
        (["--init-from", "m", "--layers", "3"], "--layers is of a new model"),
        (["--hidden-size", "10", "--heads", "3"], "not a multiple of --heads 3"),
        (["--steps", "0"], "0 is not in the range"),
        (["--lora-rank", "4"], "name one with --init-from"),
        (["--model", "m"], "--model is called --init-from here; write --init-from m"),
        (["--config", "nowhere.toml"], "nowhere.toml cannot be read"),
    ],
)
def test_misuse_exits_with_2(arguments: list[str], problem: str) -> None:
    result = CliRunner().invoke(command, ["--data", "d", "--output", "o", *arguments])
    assert result.exit_code == 2
    assert problem in result.stderr


def called(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[object, ...]:
    """What the run is called with."""
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(run, "train", lambda *given, **_: calls.append(given) or True)
    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return calls[0]


def test_a_file_gives_options_and_flags_go_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        'data = "d"\noutput = "o"\nlayers = 3\nlearning-rate = 0.5\ncompile = true\n'
        'steps = 9\nsample-prompt = ["吾輩は", "猫"]\n',
        encoding="utf-8",
    )
    found = called(monkeypatch, "--config", str(file), "--learning-rate", "0.25")
    assert found == (
        Path("d"),
        Path("o"),
        Settings(steps=9, learning_rate=0.25, compile=True, sample_prompt=("吾輩は", "猫")),
        Architecture(layers=3),
    )
    longer = called(monkeypatch, "--config", str(file), "--tokens", "1000")
    assert longer[2] == Settings(
        tokens=1000, learning_rate=0.5, compile=True, sample_prompt=("吾輩は", "猫")
    )
    other = called(monkeypatch, "--config", str(file), "--init-from", "m")
    assert other[3] == "m"  # the flag goes before the shape that the file gives
    file.write_text('data = "d"\noutput = "o"\nlayers = 3\ninit_from = "m"\n', encoding="utf-8")
    both = CliRunner().invoke(command, ["--config", str(file)])
    assert both.exit_code == 2
    assert "--layers is of a new model" in both.stderr


def test_the_record_of_a_run_is_such_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(steps=3, document_masking=True, sample_prompt=("猫",), warmup=0.5)
    record_settings(tmp_path, Path("d"), settings, Architecture(64, 2, 4))
    config = str(tmp_path / "train.json")
    found = called(monkeypatch, "--config", config, "--output", "new")
    assert found == (Path("d"), Path("new"), settings, Architecture(64, 2, 4))
    for model in (Path("m"), "owner/m"):
        record_settings(
            *(tmp_path, Path("d"), settings, model), tokenizer="t", held_out_data=Path("h")
        )
        assert called(monkeypatch, "--config", config, "--output", "new")[3] == str(model)
        record = json.loads(Path(config).read_text(encoding="utf-8"))
        assert (record["tokenizer"], record["held_out_data"]) == ("t", "h")
    # A directory that is named as a repository is none on another machine, or from elsewhere.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "m").mkdir(parents=True)
    record_settings(tmp_path, Path("d"), settings, "owner/m")
    found = called(monkeypatch, "--config", config, "--output", "new")[3]
    assert found == str(tmp_path / "owner" / "m")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("learning_rat = 1", "has 'learning_rat', which is no option"),
        ("resume = true", "has 'resume', which is no option"),
        ("steps = [", "cannot be read"),
        ("steps = 1.5", "1.5 is not a whole number"),
        ("steps = true", "True is not a whole number"),
        ("learning_rate = nan", "nan is not a finite number"),
        ("warmup = inf", "inf is not"),
        ("dropout = 1", "has 'dropout'"),
        ('model = "m"', "has 'model', which is called 'init_from' now"),
        ('learning_rate = "fast"', "'fast' is not a valid float"),
        ("steps = [1]", "steps is [1]; it must be a number"),
        ("warmup = {a = 1}", "warmup is {'a': 1}; it must be a number"),
        ("compile = 1", "compile is 1; it must be true or false"),
        ("merge = 'yes'", "merge is 'yes'; it must be true or false"),
        ("attention = 3", "attention is 3; it must be a text"),
        ("sample_prompt = '猫'", "sample_prompt is '猫'; it must be a list of texts"),
        ("sample_prompt = [1]", "sample_prompt is [1]; it must be a list of texts"),
        ('held_out_data = ""', "'' names nothing"),
        ('tokenizer = "a\\u0000"', "names nothing"),
        (f"learning_rate = 1{'0' * 400}", "is not a finite number"),
        (f"steps = 1{'0' * 400}", "is not a whole number"),
        (f"seed = '{'9' * 4000}'", "is not a whole number"),
    ],
)
def test_a_file_with_mistakes_is_misuse(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    config = ["--config", str(tmp_path / "run.toml"), "--data", "d", "--output", "o"]
    result = CliRunner().invoke(command, config)
    assert result.exit_code == 2
    assert problem in result.stderr


def test_a_run_that_cannot_go_on_is_a_failure_and_no_misuse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> bool:
        raise TrainingError("step 3: the loss is nan")

    monkeypatch.setattr(run, "train", fail)
    result = CliRunner().invoke(command, ["--data", "d", "--output", "o"])
    assert result.exit_code == 1
    assert "step 3: the loss is nan" in result.stderr


@pytest.mark.parametrize("option", ["--data", "--output", "--init-from", "--tokenizer"])
def test_an_empty_name_is_misuse_and_not_the_current_directory(option: str) -> None:
    result = CliRunner().invoke(command, ["--data", "d", "--output", "o", option, ""])
    assert result.exit_code == 2
    assert "'' names nothing" in result.stderr


@pytest.mark.parametrize("name", ["someone/kernel", "someone/kernel@main:attention", "../x", ""])
def test_an_attention_of_the_hub_is_refused(data: Path, tmp_path: Path, name: str) -> None:
    arguments = ["--data", str(data), "--output", str(tmp_path / "o"), *SMALL, "--attention", name]
    result = CliRunner().invoke(main, ["train", *arguments])
    assert_refused(result, "name an implementation of transformers, such as sdpa")
