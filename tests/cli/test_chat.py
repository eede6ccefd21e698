from __future__ import annotations

import builtins
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_neox_japanese import Codec, TextGenerator
from gpt_neox_japanese.cli import chat
from gpt_neox_japanese.tokenizer.chat_template import ChatTemplate
from tests.cli.run import assert_refused, run
from tests.model.small import small_model
from tests.tokenizer.small import vocabulary
from tests.tokenizer.template_processes import watch

TEMPLATE = """\
{% for m in messages %}{{ m.role }}:{{ m.content }}{{ eos_token }}{% endfor %}
{% if add_generation_prompt %}assistant:{% endif %}"""
WINDOW = 96


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    codec = Codec(vocabulary([*"猫犬とがいた。userasint:ym"]))
    small_model(codec, max_position_embeddings=WINDOW).save_pretrained(directory)
    codec.save(directory)
    (directory / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return directory


def talk(model: Path, lines: str, *options: object) -> list[str]:
    result = run("chat", "--model", model, "--threads", 1, "--seed", 1, *options, stdin=lines)
    assert result.exit_code == 0, result.output
    return result.stdout.split("\n")


def test_answers_are_what_the_model_writes_after_all_that_was_said(model: Path) -> None:
    options = ("--max-new-tokens", 4, "--temperature", 0)
    answers = talk(model, "猫\n\n犬。\n", *options, "--system", "と")
    with TextGenerator.from_pretrained(model, threads=1) as generator:
        template = ChatTemplate(TEMPLATE, generator.codec)
        messages = [{"role": "system", "content": "と"}]
        expected = ""
        for line in ("猫", "犬。"):
            messages.append({"role": "user", "content": line})
            answer = generator.generate(
                template.encode(messages), max_new_tokens=4, temperature=0, seed=1
            )
            messages.append({"role": "assistant", "content": answer})
            expected += answer + "\n"
    assert "\n".join(answers) == expected


def test_no_process_is_left_that_renders(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = watch(monkeypatch)
    talk(model, "猫\n", "--max-new-tokens", 1)
    assert [process.returncode is None for process in started] == [False]


def test_reset_begins_anew(model: Path) -> None:
    options = ("--max-new-tokens", 4, "--temperature", 0)
    assert talk(model, "猫\n/reset\n猫\n", *options) == [*talk(model, "猫\n", *options)[:1] * 2, ""]


def test_old_messages_are_forgotten_where_the_context_is_full(model: Path) -> None:
    result = run(
        *("chat", "--model", model, "--threads", 1, "--max-new-tokens", 8, "--seed", 1),
        stdin="猫がいた。\n" * 12,
    )
    assert result.exit_code == 0, result.output
    assert "the oldest question and its answer are forgotten" in result.stderr


def test_a_message_that_no_context_holds_is_refused(model: Path) -> None:
    result = run("chat", "--model", model, "--threads", 1, stdin="猫" * WINDOW)
    assert_refused(result, "shorten the prompt")


def test_after_a_message_that_is_refused_the_conversation_goes_on(model: Path) -> None:
    options = ("--max-new-tokens", 4, "--temperature", 0)
    result = run(
        *("chat", "--model", model, "--threads", 1, "--seed", 1, *options),
        stdin=f"猫\n{'猫' * WINDOW}\n犬。\n",
    )
    assert result.exit_code == 2
    assert result.stdout.split("\n") == talk(model, "猫\n犬。\n", *options)
    assert result.stderr.count("\n") == 1  # nothing was forgotten
    assert "shorten the prompt" in result.stderr


def test_an_answer_that_the_context_cuts_is_told(model: Path) -> None:
    arguments = ("chat", "--model", model, "--threads", 1, "--seed", 1, "--temperature", 0)
    cut = run(*arguments, "--max-new-tokens", WINDOW, stdin="猫")
    assert cut.exit_code == 0
    assert "context is full: the answer ends before --max-new-tokens" in cut.stderr
    assert run(*arguments, "--max-new-tokens", 4, stdin="猫").stderr == ""


@pytest.mark.skipif(os.name == "nt", reason="a shell closes it")
def test_a_closed_standard_input_is_told() -> None:
    command = [sys.executable, "-c", "from gpt_neox_japanese.cli import main; main()", "chat"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no message given" in done.stderr


def test_what_cannot_be_used_is_told(model: Path, tmp_path: Path) -> None:
    assert_refused(run("chat", stdin="猫"), "has no chat template")
    assert_refused(run("chat", "--model", model, stdin=b"\xff\n"), "line 1 of standard input")
    missing = tmp_path / "missing.jinja"
    assert_refused(run("chat", "--chat-template", missing, stdin="猫"), "missing.jinja")


def test_help_offers_nothing_that_a_conversation_does_not_show() -> None:
    shown = run("chat", "--help").stdout
    assert "--temperature" in shown
    assert "--logprobs" not in shown


class Terminal(io.TextIOWrapper):
    """Standard input of a program that somebody types into."""

    def __init__(self, typed: io.BytesIO | None = None, encoding: str = "utf-8") -> None:
        super().__init__(typed or io.BytesIO(), encoding=encoding)

    def isatty(self) -> bool:
        return True


def test_at_a_terminal_lines_are_asked_for_until_it_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    half = "猫".encode()[:2]
    typed = iter(["猫".encode(), b"  ", half, b" /reset "])

    def ask(_prompt: str) -> str:
        line = next(typed, None)
        if line is None:
            raise EOFError
        return line.decode()

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(builtins, "input", ask)
    assert list(chat._lines()) == ["猫", "/reset"]
    assert "not utf-8 (byte 0xe7); type it again" in capsys.readouterr().err


def test_half_a_character_is_told_where_the_answers_go_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = io.BytesIO("猫\n".encode()[:2] + b"\n" + "猫\n".encode())
    monkeypatch.setattr(sys, "stdin", Terminal(typed, encoding="utf-8"))
    assert list(chat._lines()) == ["猫"]
    assert "not utf-8 (byte 0xe7); type it again" in capsys.readouterr().err
