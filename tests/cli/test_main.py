"""What holds for every subcommand, and what may be loaded when."""

from __future__ import annotations

import ast
import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import gpt_neox_japanese
from gpt_neox_japanese import cli
from gpt_neox_japanese.cli.options.stdin import read_text
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


def test_type_checkers_see_every_public_name() -> None:
    source = Path(gpt_neox_japanese.__file__).read_text(encoding="utf-8")
    [block] = (node for node in ast.parse(source).body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert sorted(seen) == gpt_neox_japanese.__all__
    for name, module in seen.items():
        found = getattr(importlib.import_module(str(module)), name)
        assert found is getattr(gpt_neox_japanese, name)


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

    monkeypatch.setattr("gpt_neox_japanese.tokenizer.codec.Codec.from_pretrained", full)
    result = run("tokenize", "猫")
    assert result.exit_code == 1
    assert result.stderr == "neox-ja: [Errno 28] No space left on device: 'file'\n"


def test_interrupting_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gpt_neox_japanese.tokenizer.codec.Codec.from_pretrained", interrupted)
    assert run("tokenize", "猫").exit_code == 130


@pytest.mark.parametrize(
    "error", [EOFError("Ran out of input"), BrokenPipeError(32, "Broken pipe")]
)
def test_failure_that_looks_like_an_interrupt_or_a_closed_pipe_is_told(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("gpt_neox_japanese.tokenizer.codec.Codec.from_pretrained", fail)
    result = run("tokenize", "猫")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert str(error.args[-1]) in result.stderr


def test_want_of_memory_exits_1_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("gpt_neox_japanese.tokenizer.codec.Codec.from_pretrained", fail)
    result = run("tokenize", "猫")
    assert (result.exit_code, result.stderr) == (1, "neox-ja: not enough memory\n")


def process(*arguments: str | bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The outcome of one call in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from gpt_neox_japanese.cli import main; main()", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )


# A pipe of Windows, a terminal of before, and one that says nothing.
@pytest.mark.parametrize("encoding", ["cp932", "euc_jp", "latin-1", "ascii"])
def test_output_is_utf8_whatever_the_system_is_set_to(encoding: str) -> None:
    result = process("tokenize", "〜草‖🐯", "--ids", PYTHONIOENCODING=encoding)
    assert result.returncode == 0, result.stderr
    again = process("detokenize", result.stdout.decode(), PYTHONIOENCODING=encoding)
    assert again.stdout == "〜草‖🐯\n".encode()
    refused = process("detokenize", "猫", PYTHONIOENCODING=encoding)
    assert refused.returncode == 2
    assert "'猫' is not an id".encode() in refused.stderr


def test_lines_end_in_line_feeds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = {name: io.BytesIO() for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        # As Windows opens them for a pipe.
        text = io.TextIOWrapper(stream, "cp932", newline="\r\n", write_through=True)
        monkeypatch.setattr(sys, name, text)
    for arguments in (["detokenize", "0"], ["detokenize", "猫"]):
        with pytest.raises(SystemExit):
            cli.main(arguments)
    assert streams["stdout"].getvalue().endswith(b"\n")
    assert streams["stderr"].getvalue().endswith(b"\n")
    assert b"\r" not in streams["stdout"].getvalue() + streams["stderr"].getvalue()


C_LOCALE = {"PYTHONUTF8": "0", "LC_ALL": "C"}


def test_arguments_are_utf8_in_the_locale_c(tmp_path: Path) -> None:
    result = process("tokenize", "猫", **C_LOCALE)
    assert result.stdout == process("tokenize", "猫").stdout, result.stderr
    made = process(
        *("generate", "吾輩は", "--stop", "。", "--max-new-tokens", "3", "--json"), **C_LOCALE
    )
    assert json.loads(made.stdout)["prompt"] == "吾輩は"


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of files are bytes here")
@pytest.mark.parametrize("environment", [C_LOCALE, {"PYTHONUTF8": "1"}])
def test_files_are_found_and_named_in_the_locale_c(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    texts = tmp_path / "文書"
    texts.mkdir()
    (texts / "吾輩.txt").write_text("猫である", encoding="utf-8")
    Path(os.fsdecode(os.fsencode(texts) + b"/\x82\xa0.txt")).write_text("猫", encoding="utf-8")
    output = tmp_path / "出力.jsonl"
    result = process("tokenize", str(texts), "--output", str(output), **environment)
    assert result.returncode == 0, result.stderr
    lines = output.read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["id"] for line in lines} == {r"\x82\xa0.txt", "吾輩.txt"}
    shards = tmp_path / "準備"
    named = ("--tokenizer", "default", "--output", str(shards))
    prepared = process("prepare", str(texts), *named, **environment)
    assert prepared.returncode == 0, prepared.stderr
    assert "吾輩.txt" in (shards / "manifest.json").read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="arguments are no bytes")
def test_argument_of_another_encoding_is_told_of_the_locale() -> None:
    for environment in (C_LOCALE, {"PYTHONUTF8": "1"}):
        result = process("tokenize", "猫".encode("shift_jis"), **environment)
        assert result.returncode == 2
        assert b"are not UTF-8 (the locale of this terminal says " in result.stderr
        assert result.stderr.count(b"\n") == 1


def test_every_text_argument_is_read_as_utf8() -> None:
    def commands(command: click.Command) -> Iterator[click.Command]:
        yield command
        for inner in getattr(command, "commands", {}).values():
            yield from commands(inner)

    for name in cli._COMMANDS:
        command = cli.main.get_command(click.Context(cli.main), name)
        assert command
        for each in commands(command):
            for parameter in each.params:
                assert parameter.type is not click.STRING, f"{name}: {parameter.name}"


def test_libraries_that_no_command_uses_say_nothing(tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "猫"}\n', encoding="utf-8")
    result = process("evaluate", "--data", str(text), "--json")
    assert result.returncode == 0
    assert b"torch" not in result.stderr


def test_closed_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(click.UsageError, match="no text given"):
        read_text(None, "text")
