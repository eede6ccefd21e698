from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gpt_neox_japanese import default_model_directory
from gpt_neox_japanese.cli import main
from gpt_neox_japanese.tokenizer.codec import Codec
from tests.cli.run import assert_refused
from tests.tokenizer.small import vocabulary


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    Codec(vocabulary(["猫", "犬"])).save(directory)
    return directory


def detokenize(tokenizer: Path, *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(
        main, ["detokenize", "--tokenizer", str(tokenizer), *arguments], stdin
    )


@pytest.mark.parametrize("ids", [["1", "0"], ["1,0"], ["1, 0"]])
def test_numbers_become_text(tokenizer: Path, ids: list[str]) -> None:
    assert detokenize(tokenizer, *ids).stdout == "犬猫\n"


@pytest.mark.parametrize("arguments", [["-"], []])
def test_standard_input_is_read(tokenizer: Path, arguments: list[str]) -> None:
    assert detokenize(tokenizer, *arguments, stdin="0 1\n").stdout == "猫犬\n"


@pytest.mark.parametrize("text", ["猫 犬\n🐯\t🫠", " ", "한국어", "<|endoftext|>"])
def test_the_ids_of_a_text_give_the_text(tokenizer: Path, text: str) -> None:
    arguments = ["tokenize", "--tokenizer", str(tokenizer), "--ids", text]
    ids = CliRunner().invoke(main, arguments).stdout
    assert detokenize(tokenizer, stdin=ids).stdout == text + "\n"


@pytest.mark.parametrize("text", ["\x1b[31m赤\x1b[0m", "\x1b]0;題\x07", "a\r\x1b[2Kb", "\x9b1m"])
def test_escape_sequences_of_a_text_are_written_to_a_pipe_as_they_are(text: str) -> None:
    ids = Codec.load(default_model_directory()).encode(text)
    program = "from gpt_neox_japanese.cli import main; main()"
    command = [sys.executable, "-c", program, "detokenize", *map(str, ids)]
    written = subprocess.run(command, capture_output=True, check=True).stdout
    assert written == (Codec.load(default_model_directory()).decode(ids) + "\n").encode()
    assert b"\x1b" in written or "\x9b" in text


def test_escape_sequences_of_a_vocabulary_are_written_to_a_pipe_as_they_are(
    tmp_path: Path,
) -> None:
    Codec(vocabulary(["\x1b[m", "猫"])).save(tmp_path)
    arguments = ["tokenize", "--tokenizer", str(tmp_path), "\x1b[m猫"]
    assert "\t\x1b[m\t" in CliRunner().invoke(main, arguments).stdout


@pytest.mark.parametrize("ids", ["猫", "1.5", "[1]", "99999", "9" * 18])
def test_what_is_no_id_is_named_in_one_line(tokenizer: Path, ids: str) -> None:
    result = detokenize(tokenizer, ids)
    assert result.exit_code == 2
    assert ids in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("digits", [19, 400, 5000])
def test_a_number_of_many_digits_is_no_id(tokenizer: Path, digits: int) -> None:
    assert_refused(detokenize(tokenizer, "9" * digits), "is not an id")


def test_old_name_of_the_option_works_and_is_not_shown(tokenizer: Path) -> None:
    result = CliRunner().invoke(main, ["detokenize", "--model", str(tokenizer), "1", "0"])
    assert result.stdout == "犬猫\n"
    shown = CliRunner().invoke(main, ["detokenize", "--help"]).stdout
    assert "--tokenizer PATH_OR_ID" in shown
    assert "--model" not in shown


def test_ids_of_the_guides_are_those_of_the_text_beside_them() -> None:
    text = "吾輩は猫である🐯。"
    ids = CliRunner().invoke(main, ["tokenize", "--ids", text]).stdout
    assert ids == "5955 5887 4854 5963 126 7732 7582\n"
    assert CliRunner().invoke(main, ["detokenize", *ids.split()]).stdout == text + "\n"
