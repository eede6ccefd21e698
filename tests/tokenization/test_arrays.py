from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt_neox_japanese.corpus import read_documents
from gpt_neox_japanese.errors import ArgumentError, CorpusError, OutputError
from gpt_neox_japanese.tokenization.arrays import tokenize_corpus
from gpt_neox_japanese.tokenization.resumable_output import ResumableOutput
from gpt_neox_japanese.tokenizer.codec import Codec


def test_arrays_hold_every_document_between_its_bounds(
    tmp_path: Path, corpus: Path, tokenizer_directory: Path, tiny_blocks: None
) -> None:
    totals = tokenize_corpus([corpus], tokenizer_directory, tmp_path / "out", workers=1)
    ids, bounds = np.load(tmp_path / "out" / "ids.npy"), np.load(tmp_path / "out" / "bounds.npy")
    codec = Codec.load(tokenizer_directory)
    documents = list(read_documents([corpus]))
    assert (ids.dtype, bounds.dtype, len(bounds)) == (np.uint16, np.int64, len(documents) + 1)
    for i, document in enumerate(documents):
        assert ids[bounds[i] : bounds[i + 1]].tolist() == codec.encode(document.text)
    lines = (tmp_path / "out" / "documents.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [d.id for d in documents]
    assert (totals.documents, totals.tokens) == (len(documents), len(ids))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["vocabulary_fingerprint"] == codec.vocabulary.fingerprint
    assert manifest["sources"] == ["works.jsonl"]


def test_json_lines_hold_a_document_each(
    tmp_path: Path, corpus: Path, tokenizer_directory: Path
) -> None:
    tokenize_corpus([corpus], tokenizer_directory, tmp_path / "out.jsonl")
    codec = Codec.load(tokenizer_directory)
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": d.id, "ids": codec.encode(d.text)} for d in read_documents([corpus])
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize("name", ["out", "out.jsonl"])
def test_several_workers_and_an_interruption_change_nothing(
    tmp_path: Path,
    corpus: Path,
    tokenizer_directory: Path,
    tiny_blocks: None,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    def stop(files: ResumableOutput, counts: Mapping[str, int]) -> None:
        if files.blocks == 9:  # the tenth block is written and not yet counted
            raise KeyboardInterrupt
        end_block(files, counts)

    end_block = ResumableOutput.end_block
    one, two = tmp_path / "one" / name, tmp_path / "two" / name
    tokenize_corpus([corpus], tokenizer_directory, one, workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(ResumableOutput, "end_block", stop)
        with pytest.raises(KeyboardInterrupt):
            tokenize_corpus([corpus], tokenizer_directory, two, workers=2)
    tokenize_corpus([corpus], tokenizer_directory, two, workers=1, resume=True)
    found = sorted(two.parent.rglob("*"))
    assert [f.relative_to(two.parent) for f in found] == [
        f.relative_to(one.parent) for f in sorted(one.parent.rglob("*"))
    ]
    assert all(
        f.read_bytes() == (one.parent / f.relative_to(two.parent)).read_bytes()
        for f in found
        if f.is_file()
    )


def test_an_empty_corpus_gives_empty_arrays(tmp_path: Path, tokenizer_directory: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    totals = tokenize_corpus([tmp_path / "a.jsonl"], tokenizer_directory, tmp_path / "out")
    assert totals.documents == 0
    assert np.load(tmp_path / "out" / "ids.npy").tolist() == []
    assert np.load(tmp_path / "out" / "bounds.npy").tolist() == [0]


def test_existing_output_is_left_alone(
    tmp_path: Path, corpus: Path, tokenizer_directory: Path
) -> None:
    (tmp_path / "out.jsonl").write_text("precious", encoding="utf-8")
    with pytest.raises(OutputError, match="exists and is"):
        tokenize_corpus([corpus], tokenizer_directory, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize(
    ("given", "said"),
    [({"on_error": "ignore"}, "on_error is 'ignore'"), ({"workers": 0}, "workers is 0")],
)
def test_a_way_of_reading_that_there_is_not_is_refused(
    tmp_path: Path, corpus: Path, tokenizer_directory: Path, given: Any, said: str
) -> None:
    with pytest.raises(ArgumentError, match=said):
        tokenize_corpus([corpus], tokenizer_directory, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_a_broken_document_ends_the_work_or_is_told_and_passed_over(
    tmp_path: Path, tokenizer_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "猫"}\n?\n{"text": "名"}\n', encoding="utf-8")
    with pytest.raises(CorpusError, match=r"a\.jsonl, line 2"):
        tokenize_corpus([tmp_path / "a.jsonl"], tokenizer_directory, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    totals = tokenize_corpus(
        [tmp_path / "a.jsonl"], tokenizer_directory, tmp_path / "out", on_error="skip"
    )
    assert (totals.documents, totals.skipped) == (2, 1)
    assert "skipped: " in (told := capsys.readouterr().err)
    assert "a.jsonl, line 2" in told


def test_a_directory_does_not_become_a_file_of_lines(
    tmp_path: Path, corpus: Path, tokenizer_directory: Path
) -> None:
    (tmp_path / "out.jsonl").mkdir()
    with pytest.raises(OutputError, match="is a directory"):
        tokenize_corpus([corpus], tokenizer_directory, tmp_path / "out.jsonl")
