from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from gpt_neox_japanese.corpus import (
    Layout,
    choose_held_out,
    read_documents,
)
from gpt_neox_japanese.errors import CorpusError, DataError, OutputError
from gpt_neox_japanese.tokenization import resumable_output
from gpt_neox_japanese.tokenization.encode_corpus import CorpusSource, num_workers
from gpt_neox_japanese.tokenization.resumable_output import ResumableOutput
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.training.data import shard_writer
from gpt_neox_japanese.training.data.prepare import prepare
from gpt_neox_japanese.training.data.shards import PreparedData, ShardedTokens


def texts(stream: ShardedTokens, codec: Codec, eos_token_id: int) -> list[str]:
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
    choice = choose_held_out([corpus], Layout(), 0.2)
    for stream, split, held in (
        (data.train, data.manifest.train, False),
        (data.held_out, data.manifest.held_out, True),
    ):
        divided = (choice.split(document)[held] for document in documents)
        expected = [text for text in divided if text]
        assert expected
        assert texts(stream, codec, data.manifest.eos_token_id) == expected
        assert (split.documents, split.tokens) == (len(expected), len(stream))
        assert split.characters == sum(map(len, expected))


def test_the_held_out_text_stands_beside_its_tokens(prepared: Path) -> None:
    documents = list(read_documents([prepared / "held-out.jsonl"]))
    assert documents
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


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_and_blocks_changes_nothing(
    tmp_path: Path,
    prepared: Path,
    corpus: Path,
    tokenizer_directory: Path,
    tiny_blocks: None,
    workers: int,
) -> None:
    prepare([corpus], tokenizer_directory, tmp_path / "out", held_out=0.2, workers=workers)
    assert contents(tmp_path / "out") == contents(prepared)


def test_a_shard_ends_where_it_is_full(
    tmp_path: Path,
    prepared: Path,
    corpus: Path,
    tokenizer_directory: Path,
    tiny_blocks: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shard_writer, "_BYTES_PER_SHARD", 3000)
    prepare([corpus], tokenizer_directory, tmp_path / "out", held_out=0.2, workers=1)
    data, whole = PreparedData(tmp_path / "out"), PreparedData(prepared)
    assert len(data.manifest.train.shards) > 3
    assert all(tokens * 2 == 3000 for _, tokens in data.manifest.train.shards[:-1])
    assert data.train.read(0, len(data.train)).tolist() == (
        whole.train.read(0, len(whole.train)).tolist()
    )


class StopError(Exception):
    """Stands for whatever ends a run."""


@pytest.mark.parametrize("journal_after", [0, 10**9])
@pytest.mark.parametrize("documents", [1, 7, 40])
def test_an_interrupted_run_continues_to_the_same_result(
    tmp_path: Path,
    prepared: Path,
    corpus: Path,
    tokenizer_directory: Path,
    tiny_blocks: None,
    monkeypatch: pytest.MonkeyPatch,
    documents: int,
    journal_after: float,
) -> None:
    def stop(files: ResumableOutput, counts: Mapping[str, int]) -> None:
        if files.blocks == documents - 1:  # the block is written and not yet counted
            raise StopError
        end_block(files, counts)

    end_block = ResumableOutput.end_block
    output = tmp_path / "out"
    monkeypatch.setattr(resumable_output, "_SECONDS_BETWEEN_JOURNALS", journal_after)
    with monkeypatch.context() as patch:
        patch.setattr(ResumableOutput, "end_block", stop)
        with pytest.raises(StopError):
            prepare([corpus], tokenizer_directory, output, held_out=0.2, workers=1)
    assert not output.exists()
    if documents > 1:
        # A kill may come after files have grown and before the journal says so.
        partial = tmp_path / ".out.partial"
        with (partial / "train-00000.bin").open("ab") as shard:
            shard.write(b"more")
        with pytest.raises(DataError, match="--resume"):
            prepare([corpus], tokenizer_directory, output, held_out=0.2, workers=1)
        with pytest.raises(DataError, match="had another held out"):
            prepare([corpus], tokenizer_directory, output, held_out=0.3, workers=1, resume=True)
    prepare([corpus], tokenizer_directory, output, held_out=0.2, workers=1, resume=True)
    assert contents(output) == contents(prepared)
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_a_broken_line_ends_the_run_or_is_passed_over(
    tmp_path: Path,
    corpus: Path,
    prepared: Path,
    tokenizer_directory: Path,
    tiny_blocks: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = corpus.read_text(encoding="utf-8").splitlines(keepends=True)
    broken = tmp_path / "works.jsonl"
    broken.write_text("".join([*lines[:20], "?\n", *lines[20:]]), encoding="utf-8")
    output = tmp_path / "out"
    with pytest.raises(CorpusError, match=r"works\.jsonl, line 21: not JSON"):
        prepare([broken], tokenizer_directory, output, held_out=0.2, workers=1)
    manifest = prepare(
        [broken], tokenizer_directory, output, held_out=0.2, workers=1, on_error="skip", resume=True
    )
    assert "skipped: " + str(broken) + ", line 21" in capsys.readouterr().err
    assert manifest.skipped == 1
    found, expected = contents(output), contents(prepared)
    assert found.pop("manifest.json") != expected.pop("manifest.json")
    assert found == expected


def test_damaged_progress_is_refused(
    tmp_path: Path, corpus: Path, tokenizer_directory: Path
) -> None:
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    for journal in ("{", "[]", "{}"):
        (partial / "progress.json").write_text(journal, encoding="utf-8")
        with pytest.raises(DataError, match=r"progress\.json.*to start over"):
            prepare([corpus], tokenizer_directory, tmp_path / "out", resume=True)


def test_a_directory_that_is_not_empty_is_left_alone(
    tmp_path: Path, corpus: Path, tokenizer_directory: Path
) -> None:
    (tmp_path / "mine").write_text("precious", encoding="utf-8")
    with pytest.raises(OutputError, match="not empty"):
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
        prepare([corpus], tokenizer_directory, tmp_path / "out", held_out_files=[corpus], workers=1)
    assert not list(tmp_path.iterdir())


def test_another_corpus_cannot_continue_a_run(
    tmp_path: Path, corpus: Path, tokenizer_directory: Path, tiny_blocks: None
) -> None:
    grown = tmp_path / "works.jsonl"
    grown.write_text(corpus.read_text(encoding="utf-8") + "?\n", encoding="utf-8")
    with pytest.raises(CorpusError):
        prepare([grown], tokenizer_directory, tmp_path / "out", workers=1)
    with pytest.raises(DataError, match="had another corpus"):
        prepare([corpus], tokenizer_directory, tmp_path / "out", workers=1, resume=True)


def test_a_small_corpus_is_worth_one_process(corpus: Path) -> None:
    def source(*files: Path) -> CorpusSource:
        return CorpusSource(files, Layout(), "stop", 8)

    assert num_workers(source(corpus)) == 1
    assert num_workers(source(*[corpus] * 5000)) > 1
