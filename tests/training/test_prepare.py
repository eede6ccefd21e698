from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpt_neox_japanese.corpus import is_held_out, read_documents
from gpt_neox_japanese.errors import CorpusError, DataError
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.training import prepare as module
from gpt_neox_japanese.training.prepare import prepare
from gpt_neox_japanese.training.shards import PreparedData, TokenStream


def texts(stream: TokenStream, codec: Codec, eos_token_id: int) -> list[str]:
    documents: list[list[int]] = [[]]
    for token in stream.read(0, len(stream)).tolist():
        if token == eos_token_id:
            documents.append([])
        else:
            documents[-1].append(token)
    assert documents.pop() == []
    return [codec.decode(ids) for ids in documents]


def test_shards_decode_to_the_corpus_in_order(prepared: Path, corpus: Path) -> None:
    data = PreparedData(prepared)
    codec = Codec.load(prepared)
    documents = list(read_documents([corpus]))
    for stream, split, held in (
        (data.train, data.manifest.train, False),
        (data.held_out, data.manifest.held_out, True),
    ):
        expected = [d.text for d in documents if is_held_out(d.id, 0.2) == held]
        assert expected
        assert texts(stream, codec, data.manifest.eos_token_id) == expected
        assert (split.documents, split.tokens) == (len(expected), len(stream))
        assert split.characters == sum(map(len, expected))


def test_the_held_out_text_stands_beside_its_tokens(prepared: Path) -> None:
    documents = list(read_documents([prepared / "held-out.jsonl"]))
    assert documents
    assert all(is_held_out(document.id, 0.2) for document in documents)
    data = PreparedData(prepared)
    found = texts(data.held_out, Codec.load(prepared), data.manifest.eos_token_id)
    assert found == [document.text for document in documents]


def test_the_manifest_names_sources_without_their_directories(prepared: Path, corpus: Path) -> None:
    text = (prepared / "manifest.json").read_text(encoding="utf-8")
    assert json.loads(text)["sources"] == [corpus.name]
    assert str(corpus.parent) not in text


def test_the_prepared_directory_has_the_tokenizer_with_its_options(
    prepared: Path, tokenizer_directory: Path
) -> None:
    for name in ("vocab.txt", "emoji.json", "tokenizer_config.json"):
        assert (prepared / name).read_bytes() == (tokenizer_directory / name).read_bytes()
    assert not Codec.load(prepared).legacy


def test_the_number_of_workers_changes_nothing(
    tmp_path: Path, prepared: Path, corpus: Path, tokenizer_directory: Path
) -> None:
    prepare([corpus], tokenizer_directory, tmp_path / "two", held_out=0.2, workers=2)
    files = sorted(file.name for file in prepared.iterdir())
    assert sorted(file.name for file in (tmp_path / "two").iterdir()) == files
    for name in files:
        assert (tmp_path / "two" / name).read_bytes() == (prepared / name).read_bytes()


def test_a_directory_that_is_not_empty_is_left_alone(
    tmp_path: Path, corpus: Path, tokenizer_directory: Path
) -> None:
    (tmp_path / "mine").write_text("precious", encoding="utf-8")
    with pytest.raises(DataError, match="not empty"):
        prepare([corpus], tokenizer_directory, tmp_path, workers=1)
    assert (tmp_path / "mine").read_text(encoding="utf-8") == "precious"


def test_a_failure_leaves_nothing_behind(tmp_path: Path, tokenizer_directory: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "猫"}\nnot json\n', encoding="utf-8")
    with pytest.raises(CorpusError):
        prepare([broken], tokenizer_directory, tmp_path / "out", workers=1)
    assert [file.name for file in tmp_path.iterdir()] == ["broken.jsonl"]


def test_holding_out_everything_is_refused(
    tmp_path: Path, corpus: Path, tokenizer_directory: Path
) -> None:
    with pytest.raises(DataError, match="no document is left to train on"):
        prepare([corpus], tokenizer_directory, tmp_path / "out", held_out=1, workers=1)


def test_batches_hold_every_document_once_and_stay_small(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHARACTERS_PER_BATCH", 1000)
    documents = list(read_documents([corpus]))
    batches = list(module._batches(iter(documents)))
    assert [document for batch in batches for document in batch] == documents
    assert len(batches) > 5
    assert all(sum(len(d.text) for d in batch[:-1]) < 1000 for batch in batches)
