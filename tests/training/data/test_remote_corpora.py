"""Corpora and results at URLs: the same bytes as here, whatever happens in between."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFile
from pyarrow import parquet

from gpt_neox_japanese.corpus import Layout, corpus_files, read_blocks, read_documents
from gpt_neox_japanese.errors import ArgumentError, CorpusError, OutputError, RemoteError
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.training.data.merge import merge
from gpt_neox_japanese.training.data.prepare import prepare
from gpt_neox_japanese.training.data.run_data import open_data
from tests.cli.run import assert_refused, run
from tests.conftest import SENTENCE
from tests.files.remote import WithoutRanges, http_server
from tests.training.data.test_megatron import write

HELD_OUT = 0.2


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies and unfinished results are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gpt-neox-japanese"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A corpus of every kind on this machine."""
    folder = tmp_path / "corpus"
    (folder / "sub").mkdir(parents=True)
    lines = "".join(
        json.dumps({"id": f"{n}", "text": SENTENCE * (n % 5)}) + "\n" for n in range(40)
    )
    (folder / "a.txt").write_text(SENTENCE * 3, encoding="utf-8")
    (folder / "b.jsonl").write_text(lines, encoding="utf-8")
    (folder / "sub" / "c.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    table = pa.table({"text": [SENTENCE * n for n in range(1, 9)]})
    parquet.write_table(table, folder / "sub" / "d.parquet", row_group_size=3)
    (folder / "notes.md").touch()
    return folder


@pytest.fixture
def there(here: Path, memory: fsspec.AbstractFileSystem) -> str:
    """The same corpus elsewhere."""
    memory.put(f"{here}/", "memory://bucket/corpus/", recursive=True)
    return "memory://bucket/corpus"


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def contents_there(system: Any, url: str) -> dict[str, bytes]:
    return {path.rpartition("/")[2]: system.cat(path) for path in system.find(url)}


@pytest.mark.usefixtures("tiny_blocks")
def test_a_corpus_elsewhere_falls_into_the_same_blocks(here: Path, there: str) -> None:
    ours, theirs = (list(read_blocks(corpus_files([x]), Layout())) for x in (here, there))
    assert [block.size for block in theirs] == [block.size for block in ours]
    for mine, its in zip(ours, theirs, strict=True):
        pairs = zip(mine.documents(), its.documents(), strict=True)
        assert all((a.id, a.text, a.line) == (b.id, b.text, b.line) for a, b in pairs)  # type: ignore[union-attr]


def test_what_is_prepared_from_and_to_urls_is_what_is_prepared_here(
    here: Path,
    there: str,
    memory: fsspec.AbstractFileSystem,
    tokenizer_directory: Path,
    tmp_path: Path,
    cache: Path,
) -> None:
    prepare([here], tokenizer_directory, tmp_path / "one", held_out=HELD_OUT, workers=1)
    expected = contents(tmp_path / "one")
    output = "memory://bucket/out"
    ordinary = ("--tokenizer", tokenizer_directory, "--held-out", HELD_OUT, "--workers", 1)
    assert run("prepare", there, *ordinary, "--output", output).exit_code == 0
    assert contents_there(memory, output) == expected
    parts = [f"memory://bucket/part-{index}" for index in (2, 1)]
    for index, part in zip((2, 1), parts, strict=True):
        run("prepare", there, *ordinary, "--output", part, "--part", f"{index}/2")
    assert run("prepare", "--merge", *parts, "--output", f"{output}/merged").exit_code == 0
    assert contents_there(memory, f"{output}/merged") == expected
    merge(parts, tmp_path / "merged")
    assert contents(tmp_path / "merged") == expected
    assert not list((cache / "outputs").iterdir())


def test_files_to_evaluate_with_may_be_elsewhere(
    here: Path, there: str, tokenizer_directory: Path, tmp_path: Path
) -> None:
    for corpus, output in ((str(here), "one"), (there, "other")):
        options = (
            "--tokenizer",
            tokenizer_directory,
            "--workers",
            1,
            "--output",
            tmp_path / output,
        )
        own = ("--held-out-files", f"{corpus}/a.txt")
        assert run("prepare", corpus, *own, *options).exit_code == 0
    assert contents(tmp_path / "other") == contents(tmp_path / "one")
    assert b"a.txt" in (tmp_path / "one" / "held-out.jsonl").read_bytes()


def test_the_manifest_is_written_last(
    there: str,
    memory: fsspec.AbstractFileSystem,
    tokenizer_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[str] = []
    put = type(memory).put_file

    def noted(system: Any, local: str, path: str, **options: Any) -> None:
        written.append(path.rpartition("/")[2])
        put(system, local, path, **options)

    monkeypatch.setattr(type(memory), "put_file", noted)
    prepare([there], tokenizer_directory, "memory://bucket/out", workers=1)
    assert written[0] == ".unfinished-result"  # before any work
    assert written[-1] == "manifest.json"


@pytest.mark.parametrize("merging", [False, True])
def test_an_upload_that_failed_is_done_again_by_resume(
    merging: bool,
    there: str,
    memory: fsspec.AbstractFileSystem,
    tokenizer_directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def make(output: str | Path, **options: Any) -> None:
        prepare([there], tokenizer_directory, output, workers=1, **options)

    if merging:
        make(tmp_path / "1", part=(1, 2))
        make(tmp_path / "2", part=(2, 2))
    do = partial(merge, [tmp_path / "1", tmp_path / "2"]) if merging else make
    put = type(memory).put_file

    def fails(system: Any, local: str, path: str, **options: Any) -> None:
        if path.endswith("train-00000.bin"):
            raise OSError("the connection was reset by s3://user:SECRET@host/?key=SECRET")
        put(system, local, path, **options)

    with monkeypatch.context() as broken:
        broken.setattr(type(memory), "put_file", fails)
        with pytest.raises(RemoteError, match=r"train-00000.bin cannot be written: the conn") as e:
            do("memory://bucket/out")
    assert "SECRET" not in str(e.value)
    assert "continue with --resume" in capsys.readouterr().err
    assert "manifest.json" not in contents_there(memory, "memory://bucket/out")
    do("memory://bucket/out", resume=True)
    make("memory://bucket/again")
    expected = contents_there(memory, "memory://bucket/again")
    assert contents_there(memory, "memory://bucket/out") == expected


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize("name", ["a.txt", "b.jsonl", "c.jsonl.gz", "d.parquet"])
def test_a_network_that_fails_is_no_broken_document_and_the_run_can_be_resumed(
    there: str,
    memory: fsspec.AbstractFileSystem,
    tokenizer_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    read = MemoryFile.read

    def fails(file: MemoryFile, length: int = -1) -> bytes:
        if file.path.endswith(name) and (name == "a.txt" or file.tell() > 100):
            raise OSError("connection lost")
        data = read(file, length if name == "d.parquet" else min(length, 150))
        assert isinstance(data, bytes)
        return data

    with monkeypatch.context() as broken:
        broken.setattr(MemoryFile, "read", fails)
        with pytest.raises(RemoteError, match=rf"{name} cannot be read: connection lost; check"):
            prepare([there], tokenizer_directory, "memory://bucket/out", workers=1, on_error="skip")
    prepare(
        [there], tokenizer_directory, "memory://bucket/out", workers=1, on_error="skip", resume=True
    )
    prepare([there], tokenizer_directory, "memory://bucket/again", workers=1)
    expected = contents_there(memory, "memory://bucket/again")
    assert contents_there(memory, "memory://bucket/out") == expected


def test_a_place_elsewhere_that_is_not_empty_is_refused(
    there: str, memory: fsspec.AbstractFileSystem, tokenizer_directory: Path, tmp_path: Path
) -> None:
    for output, said in [
        (there, "exists and is not empty"),
        (f"{there}/a.txt", "is a file"),
        ("https://127.0.0.1/out", "cannot be written by http"),
    ]:
        with pytest.raises(OutputError, match=said):
            prepare([there], tokenizer_directory, output)
    assert "held-out.jsonl" not in contents_there(memory, there)


def test_what_is_not_there_or_no_corpus_is_refused(
    there: str, tokenizer_directory: Path, tmp_path: Path
) -> None:
    with pytest.raises(CorpusError, match="memory://bucket/none does not exist"):
        corpus_files(["memory://bucket/none"])
    with pytest.raises(CorpusError, match=r"notes\.md is of an unknown kind"):
        corpus_files([f"{there}/notes.md"])
    result = run("generate", "猫", "--model", "s3://key:secret@bucket/model")
    assert_refused(result, "s3://bucket/model is a URL; give a path on this machine")


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".jsonl.gz", ".parquet"])
@pytest.mark.parametrize("ranges", [True, False])
def test_http_is_read_file_by_file(here: Path, suffix: str, ranges: bool) -> None:
    [file] = here.rglob(f"?{suffix}")
    with http_server(here) if ranges else http_server(here, WithoutRanges) as address:
        url = f"{address}/{file.relative_to(here).as_posix()}?key=SECRET"
        theirs = [(d.id, d.text) for d in read_documents([url])]
        assert theirs == [(d.id, d.text) for d in read_documents([file])]


def test_every_command_that_reads_a_corpus_reads_one_elsewhere(
    there: str, tokenizer_directory: Path, tmp_path: Path
) -> None:
    tokenizer = ("--tokenizer", tokenizer_directory)
    shown = run("vocab", "show", f"{there}/a.txt", *tokenizer, "--json")
    assert json.loads(shown.stdout)["texts"]["characters"] == 3 * len(SENTENCE)
    built = run("vocab", "build", there, "--size", 790, "--output", tmp_path / "vocabulary")
    assert built.exit_code == 0, built.output
    made = run("tokenize", there, *tokenizer, "--workers", 1, "--output", tmp_path / "ids.jsonl")
    assert made.stdout.startswith("89 documents")
    measured = run("evaluate", "--data", f"{there}/a.txt", "--json")
    assert json.loads(measured.stdout)["documents"] == 1


def test_data_to_train_on_is_copied_once_and_again_when_it_changes(
    here: Path,
    there: str,
    memory: fsspec.AbstractFileSystem,
    tokenizer_directory: Path,
    cache: Path,
) -> None:
    prepare([there], tokenizer_directory, "memory://bucket/data", held_out=HELD_OUT, workers=1)
    first = open_data("memory://bucket/data", None)
    assert open_data("memory://bucket/data", None).tokenizer == first.tokenizer
    memory.rm("memory://bucket/data", recursive=True)
    prepare([here / "b.jsonl"], tokenizer_directory, "memory://bucket/data", workers=1)
    second = open_data("memory://bucket/data", None)
    assert len(second.train) != len(first.train)
    assert len(first.train.read(0, len(first.train)))
    with pytest.raises(ArgumentError, match="memory://bucket/none does not exist"):
        open_data("memory://bucket/none", None)
    with pytest.raises(ArgumentError, match="http cannot list a directory"):
        open_data("http://127.0.0.1:9/data", None)
    assert not list((cache / "data").glob(".*.partial"))


def test_an_indexed_dataset_elsewhere_comes_with_its_index(
    memory: fsspec.AbstractFileSystem, tokenizer_directory: Path, tmp_path: Path
) -> None:
    end = Codec.load(tokenizer_directory).eot_token
    write(tmp_path / "corpus", [[5, 6, 7, end]])
    for suffix in (".bin", ".idx"):
        memory.put_file(str(tmp_path / f"corpus{suffix}"), f"memory://indexed/corpus{suffix}")
    for name in ("corpus", "corpus.bin", "corpus.idx"):
        assert len(open_data(f"memory://indexed/{name}", tokenizer_directory).train) == 4


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[fsspec.AbstractFileSystem]:
    """An empty bucket of a local S3."""
    moto = pytest.importorskip("moto.server", reason="needs a local S3: pip install 'moto[server]'")
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs")
    monkeypatch.setitem(os.environ, "AWS_ACCESS_KEY_ID", "AKIASECRET")
    monkeypatch.setitem(os.environ, "AWS_SECRET_ACCESS_KEY", "SECRET")
    monkeypatch.setitem(os.environ, "AWS_DEFAULT_REGION", "us-east-1")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setitem(os.environ, "AWS_ENDPOINT_URL", f"http://{host}:{port}")
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("bucket")
    yield system
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.mark.usefixtures("tiny_blocks")
def test_s3_gives_the_bytes_of_a_corpus_here_with_several_workers(
    s3: fsspec.AbstractFileSystem, here: Path, tokenizer_directory: Path, tmp_path: Path
) -> None:
    s3.put(f"{here}/", "bucket/corpus/", recursive=True)
    prepare([here], tokenizer_directory, tmp_path / "one", held_out=HELD_OUT, workers=1)
    for workers, output in ((2, "s3://bucket/out"), (1, "s3://bucket/out-1")):
        prepare(
            ["s3://bucket/corpus"], tokenizer_directory, output, held_out=HELD_OUT, workers=workers
        )
        assert contents_there(s3, output) == contents(tmp_path / "one")
    assert len(open_data("s3://bucket/out", None).train)
    with pytest.raises(RemoteError, match="s3://none/corpus cannot be reached"):
        corpus_files(["s3://none/corpus"])
    shutil.rmtree(here)
