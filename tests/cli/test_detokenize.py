from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gpt_neox_japanese.cli import main
from gpt_neox_japanese.tokenizer.codec import Codec
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


@pytest.mark.parametrize("ids", ["猫", "1.5", "[1]", "99999"])
def test_what_is_no_id_is_named_in_one_line(tokenizer: Path, ids: str) -> None:
    result = detokenize(tokenizer, ids)
    assert result.exit_code == 2
    assert ids in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


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
