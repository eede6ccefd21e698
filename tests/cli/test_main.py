"""What holds for every subcommand, and what may be loaded when."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest

import gpt_neox_japanese
from gpt_neox_japanese import cli
from gpt_neox_japanese.cli.texts import read_text
from tests.cli.run import assert_refused, run

HEAVY = ("torch", "numba", "transformers")


def loaded_by(code: str) -> set[str]:
    probe = f"{code}\nimport sys\nprint(*(m for m in {HEAVY!r} if m in sys.modules))"
    return set(
        subprocess.run(
            [sys.executable, "-c", probe], check=True, capture_output=True, text=True
        ).stdout.split()
    )


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import gpt_neox_japanese") == set()


def test_the_tokenizer_alone_loads_neither_torch_nor_transformers() -> None:
    assert loaded_by("import gpt_neox_japanese as g; g.Codec; g.Vocabulary") <= {"numba"}


def test_writing_text_loads_neither_torch_nor_transformers() -> None:
    code = "import gpt_neox_japanese as g; g.TextGenerator.load().generate('猫', max_new_tokens=2)"
    assert loaded_by(code).isdisjoint({"torch", "transformers"})


def test_help_loads_nothing_heavy() -> None:
    code = "from gpt_neox_japanese.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert loaded_by(code).isdisjoint(HEAVY)


def test_public_names_are_sorted_and_exist() -> None:
    assert sorted(gpt_neox_japanese.__all__) == gpt_neox_japanese.__all__
    for name in gpt_neox_japanese.__all__:
        assert getattr(gpt_neox_japanese, name).__name__ == name
    with pytest.raises(AttributeError, match="Tokeniser"):
        _ = gpt_neox_japanese.Tokeniser


@pytest.mark.parametrize("name", cli._COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: main {name}")


def test_no_command_shows_the_overview() -> None:
    result = run()
    assert result.exit_code == 2
    assert "generate" in result.stderr


def test_version_is_the_package_version() -> None:
    assert run("--version").stdout == f"neox-ja, version {gpt_neox_japanese.__version__}\n"


def test_unknown_command_and_option_are_refused() -> None:
    assert_refused(run("write"), "'write'")
    assert_refused(run("generate", "猫", "--colour"), "--colour")


def test_failure_of_the_system_exits_1_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "file")

    monkeypatch.setattr("gpt_neox_japanese.tokenizer.codec.Codec.load", full)
    result = run("tokenize", "猫")
    assert result.exit_code == 1
    assert result.stderr == "neox-ja: [Errno 28] No space left on device: 'file'\n"


def test_interrupting_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gpt_neox_japanese.tokenizer.codec.Codec.load", interrupted)
    assert run("tokenize", "猫").exit_code == 130


def test_terminal_without_japanese_is_told_what_to_do() -> None:
    code = "from gpt_neox_japanese.cli import main; main(['detokenize', '0'])"
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.startswith("neox-ja: cannot write Japanese in latin-1")


def test_closed_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(click.UsageError, match="no text given"):
        read_text(None, "text")
