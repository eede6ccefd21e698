from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gpt_neox_japanese.assets import default_model_directory
from gpt_neox_japanese.cli import main
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.training.data.shards import PreparedData
from tests.cli.run import assert_refused, run
from tests.tokenizer.small import vocabulary


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    Codec(vocabulary(["猫", "犬"])).save(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def prepare(corpus: Path, tokenizer: Path, *options: str) -> Result:
    output = str(corpus.parent / "out")
    arguments = ["prepare", str(corpus), "--tokenizer", str(tokenizer), "--output", output]
    return CliRunner().invoke(main, [*arguments, "--held-out", "0", *options])


def test_prepare_tells_what_it_made(tmp_path: Path, tokenizer: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.txt").write_text("猫犬", encoding="utf-8")
    (corpus / "b.txt").write_text("犬", encoding="utf-8")
    result = prepare(corpus, tokenizer, "--workers", "1")
    assert result.exit_code == 0
    assert result.stdout == (
        "train: 2 documents, 3 characters (100.0%), 5 tokens\n"
        "held out: 0 documents, 0 characters (0.0%), 0 tokens\n"
    )
    assert "9.00/9.00" in result.stderr  # of the bytes
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["sources"] == ["a.txt", "b.txt"]


def test_a_broken_line_fails_with_file_and_line_and_can_be_skipped(
    tmp_path: Path, tokenizer: Path
) -> None:
    corpus = tmp_path / "a.jsonl"
    corpus.write_text('{"body": "猫"}\n{"body": 1}\n', encoding="utf-8")
    stopped = prepare(corpus, tokenizer, "--text-field", "body")
    assert stopped.exit_code in (1, 2)
    assert stopped.stderr.splitlines()[-1] == (
        f'neox-ja: {corpus}, line 2: expected an object with a string "body"'
    )
    skipped = prepare(corpus, tokenizer, "--text-field", "body", "--on-error", "skip")
    assert skipped.exit_code == 0
    assert "skipped: 1 broken documents" in skipped.stdout
    assert f"skipped: {corpus}, line 2" in skipped.stderr


def test_split_lines_makes_a_document_of_every_line(tmp_path: Path, tokenizer: Path) -> None:
    corpus = tmp_path / "a.txt"
    corpus.write_text("猫\n犬\n", encoding="utf-8")
    assert "train: 2 documents" in prepare(corpus, tokenizer, "--split-lines").stdout
    assert PreparedData(tmp_path / "out").manifest.train.characters == 2


def test_resume_starts_a_run_that_has_not_begun(tmp_path: Path, tokenizer: Path) -> None:
    corpus = tmp_path / "a.txt"
    corpus.write_text("猫", encoding="utf-8")
    assert prepare(corpus, tokenizer, "--resume").exit_code == 0
    again = prepare(corpus, tokenizer, "--resume")
    assert again.exit_code in (1, 2)
    assert "exists and is not empty" in again.stderr


def test_a_missing_corpus_is_told_in_one_line(tmp_path: Path, tokenizer: Path) -> None:
    result = prepare(tmp_path / "no.txt", tokenizer)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith("no.txt does not exist")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--held-out", "1"], ["--workers", "0"], ["--on-error", "ignore"], ["--nonsense"]],
)
def test_misuse_exits_with_2(tmp_path: Path, tokenizer: Path, arguments: list[str]) -> None:
    assert prepare(tmp_path / "a.txt", tokenizer, *arguments).exit_code == 2


def test_the_vocabulary_is_never_taken_for_granted(tmp_path: Path) -> None:
    corpus, output = tmp_path / "a.txt", tmp_path / "out"
    corpus.write_text("猫", encoding="utf-8")
    assert_refused(run("prepare", corpus, "--output", output), "`--tokenizer default`")
    old = run("prepare", corpus, "--output", output, "--model", "here")
    assert_refused(old, "--model is called --tokenizer here; write --tokenizer here")
    assert not output.exists()
    named = run("prepare", corpus, "--output", output, "--tokenizer", "default", "--held-out", "0")
    assert named.exit_code == 0, named.output
    assert Codec.load(output).fingerprint == Codec.load(default_model_directory()).fingerprint


def test_help_says_when_no_vocabulary_is_named() -> None:
    shown = " ".join(run("prepare", "--help").stdout.split())
    assert "[required, but for --merge]" in shown


def test_of_one_conversation_none_can_be_held_out_and_more_would_help(tmp_path: Path) -> None:
    said = {"id": "1", "prompt": "猫", "completion": "犬"}
    (tmp_path / "one.jsonl").write_text(json.dumps(said), encoding="utf-8")
    given = ("--conversations", "--held-out", 0.5, "--output", tmp_path / "out")
    result = run("prepare", tmp_path / "one.jsonl", "--tokenizer", "default", *given)
    assert result.exit_code == 0, result.output
    assert "give more conversations" in result.stderr


def test_a_file_of_its_own_is_held_out_wherever_it_lies(tmp_path: Path, tokenizer: Path) -> None:
    corpus, output = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    for name, text in (("a.txt", "猫犬" * 500), ("b.txt", "犬犬犬"), ("c.txt", "猫")):
        (corpus / name).write_text(text, encoding="utf-8")
    command = ("prepare", corpus, "--tokenizer", tokenizer, "--output", output)
    result = run(*command, "--held-out-files", corpus / "b.txt")
    assert result.exit_code == 0, result.output
    assert "held out: 1 documents, 3 characters (0.3%), 4 tokens\n" in result.stdout
    manifest = PreparedData(output).manifest
    assert (manifest.sources, manifest.held_out_sources) == (("a.txt", "c.txt"), ("b.txt",))
    assert json.loads((output / "held-out.jsonl").read_text(encoding="utf-8")) == {
        "id": "b.txt",
        "text": "犬犬犬",
    }


def test_held_out_text_that_cannot_be_is_not_missing_silently(
    tmp_path: Path, tokenizer: Path
) -> None:
    corpus = tmp_path / "a.txt"
    corpus.write_text("猫", encoding="utf-8")
    output = tmp_path / "out"
    result = run("prepare", corpus, "--tokenizer", tokenizer, "--output", output)
    assert result.exit_code == 0, result.output
    assert "nothing is held out" in result.stderr
