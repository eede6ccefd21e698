from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gpt_neox_japanese.cli.prepare import command
from gpt_neox_japanese.errors import CorpusError
from gpt_neox_japanese.tokenizer.codec import Codec
from tests.tokenizer.small import vocabulary


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    Codec(vocabulary(["猫", "犬"])).save(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def test_prepare_tells_what_it_made(tmp_path: Path, tokenizer: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.txt").write_text("猫犬", encoding="utf-8")
    (corpus / "b.txt").write_text("犬", encoding="utf-8")
    result = CliRunner().invoke(
        command,
        [
            *(str(corpus), "--model", str(tokenizer), "--output", str(tmp_path / "out")),
            *("--held-out", "0", "--workers", "1"),
        ],
        catch_exceptions=False,
    )
    assert result.stdout == (
        "train: 2 documents, 3 characters, 5 tokens\n"
        "held out: 0 documents, 0 characters, 0 tokens\n"
    )
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["sources"] == ["a.txt", "b.txt"]


def test_a_missing_corpus_is_our_own_error(tmp_path: Path, tokenizer: Path) -> None:
    with pytest.raises(CorpusError, match="does not exist"):
        CliRunner().invoke(
            command,
            [str(tmp_path / "no.txt"), "--model", str(tokenizer), "--output", str(tmp_path / "o")],
            catch_exceptions=False,
        )


@pytest.mark.parametrize("arguments", [["--held-out", "1"], ["--workers", "0"], []])
def test_misuse_exits_with_2(tmp_path: Path, arguments: list[str]) -> None:
    output = ["--output", str(tmp_path / "o")] if arguments else []
    result = CliRunner().invoke(command, ["a.txt", *output, *arguments])
    assert result.exit_code == 2
