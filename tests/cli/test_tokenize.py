from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
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


def tokenize(tokenizer: Path, *arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["tokenize", "--tokenizer", str(tokenizer), *arguments], stdin)


def test_each_token_is_shown_with_its_place(tokenizer: Path) -> None:
    space = Codec.load(tokenizer).vocabulary.ids["<SP>"]
    result = tokenize(tokenizer, "犬 猫")
    assert result.exit_code == 0
    assert result.stdout == f"1\t犬\t0-1\n{space}\t<SP>\t1-2\n0\t猫\t2-3\n"


def test_ids_alone_stand_on_one_line(tokenizer: Path) -> None:
    assert tokenize(tokenizer, "犬猫犬", "--ids").stdout == "1 0 1\n"


def test_json_holds_ids_tokens_and_offsets(tokenizer: Path) -> None:
    assert json.loads(tokenize(tokenizer, "犬猫", "--json").stdout) == {
        "ids": [1, 0],
        "tokens": ["犬", "猫"],
        "offsets": [[0, 1], [1, 2]],
    }


def test_nothing_becomes_nothing(tokenizer: Path) -> None:
    assert tokenize(tokenizer, "", "--ids").stdout == "\n"
    assert json.loads(tokenize(tokenizer, "", "--json").stdout)["offsets"] == []


@pytest.mark.parametrize("arguments", [["-"], []])
def test_standard_input_is_read(tokenizer: Path, arguments: list[str]) -> None:
    assert tokenize(tokenizer, *arguments, "--ids", stdin="猫犬").stdout == "0 1\n"


def test_spelled_out_tags_are_text(tokenizer: Path) -> None:
    tag = Codec.load(tokenizer).vocabulary.ids["<|endoftext|>"]
    assert str(tag) not in tokenize(tokenizer, "<|endoftext|>", "--ids").stdout.split()


def test_files_become_arrays_or_json_lines(tokenizer: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "a.jsonl"
    corpus.write_text('{"key": 1, "body": "猫犬"}\n{"body": "犬"}\n', encoding="utf-8")
    fields = ["--text-field", "body", "--id-field", "key"]
    arrays = tokenize(tokenizer, str(corpus), *fields, "--output", str(tmp_path / "out"))
    assert arrays.exit_code == 0
    assert arrays.stdout == "2 documents, 3 characters, 3 tokens, 0 skipped\n"
    assert "B/s" in arrays.stderr
    assert np.load(tmp_path / "out" / "ids.npy").tolist() == [0, 1, 1]
    assert np.load(tmp_path / "out" / "bounds.npy").tolist() == [0, 2, 3]
    lines = tokenize(tokenizer, str(corpus), *fields, "--output", str(tmp_path / "out.jsonl"))
    assert lines.exit_code == 0
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == (
        '{"id": "1", "ids": [0, 1]}\n{"id": "a.jsonl:2", "ids": [1]}\n'
    )


def test_broken_documents_are_counted_when_skipped(tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('?\n{"text": "犬"}\n', encoding="utf-8")
    arguments = [str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "out")]
    stopped = tokenize(tokenizer, *arguments)
    assert "a.jsonl, line 1: not JSON" in stopped.stderr.splitlines()[-1]
    skipped = tokenize(tokenizer, *arguments, "--on-error", "skip")
    assert skipped.stdout == "1 documents, 1 characters, 1 tokens, 1 skipped\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["猫", "犬"], "quote one text"),
        (["猫", "--resume"], "--resume needs --output"),
        (["猫", "--workers", "2"], "--workers needs --output"),
        (["--output", "out"], "--output takes FILEs"),
        (["a.txt", "--output", "out", "--json"], "--output takes FILEs"),
        (["no-such-file.txt", "--output", "out"], "no-such-file.txt does not exist"),
    ],
)
def test_misuse_exits_with_2_and_one_line(
    tokenizer: Path, arguments: list[str], problem: str
) -> None:
    result = tokenize(tokenizer, *arguments)
    assert result.exit_code == 2
    assert problem in result.stderr.splitlines()[-1]
    assert not Path("out").exists()


def test_standard_input_that_is_not_utf8_is_told(tokenizer: Path) -> None:
    result = tokenize(tokenizer, "-", stdin=b"\xff")
    assert result.exit_code == 2
    assert "not UTF-8 (byte 0xff at 0)" in result.stderr


def test_a_missing_model_is_told(tmp_path: Path) -> None:
    result = tokenize(tmp_path / "none", "猫")
    assert result.exit_code in (1, 2)
    assert "vocab.txt" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("files", [False, True])
def test_no_heavy_library_is_imported(tokenizer: Path, tmp_path: Path, files: bool) -> None:
    (tmp_path / "a.txt").write_text("猫", encoding="utf-8")
    arguments = [str(tmp_path / "a.txt"), "--output", str(tmp_path / "out")] if files else ["猫"]
    program = (
        "import sys\n"
        "from gpt_neox_japanese.cli import main\n"
        "try:\n"
        f"    main(['tokenize', '--tokenizer', {str(tokenizer)!r}, *{arguments!r}])\n"
        "except SystemExit as ended:\n"
        "    heavy = {'torch', 'transformers', 'pyarrow', 'scipy', 'pandas'}\n"
        "    print('status', ended.code, 'heavy', sorted(heavy & sys.modules.keys()))\n"
    )
    command = [sys.executable, "-X", "utf8", "-c", program]
    result = subprocess.run(command, check=True, capture_output=True)
    assert result.stdout.splitlines()[-1] == b"status 0 heavy []"
