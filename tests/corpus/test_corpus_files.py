from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path

import pytest
import zstandard

from gpt_neox_japanese.corpus import (
    corpus_files,
    read_documents,
)
from gpt_neox_japanese.errors import CorpusError


def test_a_directory_is_its_corpus_files_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a.jsonl", "notes.md", "c/d.txt.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [f.relative_to(tmp_path).as_posix() for f in corpus_files([tmp_path])]
    assert found == ["a.jsonl", "b.txt", "c/d.txt.gz"]


def test_what_is_missing_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").touch()
    with pytest.raises(CorpusError, match="does not exist"):
        corpus_files([tmp_path / "none.txt"])
    with pytest.raises(CorpusError, match="unknown kind"):
        corpus_files([tmp_path / "a.pdf"])
    with pytest.raises(CorpusError, match="no corpus files"):
        corpus_files([tmp_path])


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [("a.jsonl.zst", "zstandard", "train"), ("a.parquet", "pyarrow", "parquet")],
)
def test_a_missing_library_is_named_with_its_remedy_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, library: str, extra: str
) -> None:
    (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(CorpusError, match=rf"pip install 'gpt-neox-japanese\[{extra}\]'"):
        corpus_files([tmp_path])


def test_what_a_directory_holds_besides_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "猫"}\n', encoding="utf-8")
    (tmp_path / "._a.jsonl").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    for name in ("b.json", "c.json", "d.md", ".DS_Store"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    assert [d.text for d in read_documents([tmp_path])] == ["猫"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("passed over: 2 *.json, ")
    for said in ("1 *.md", "1 ._* (macOS", "1 without suffix", "1 links to directories", ".jsonl"):
        assert said in line
    list(read_documents([tmp_path / "a.jsonl"]))
    assert capsys.readouterr().err == ""


def test_a_directory_of_other_files_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.json").touch()
    with pytest.raises(CorpusError, match=r"no corpus files; expected .*found 1 \*\.json"):
        corpus_files([tmp_path])


def test_a_long_list_of_other_files_is_cut_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(100):
        (tmp_path / f"a.{n}").touch()
    (tmp_path / "a.txt").touch()
    corpus_files([tmp_path])
    assert "94 others" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["A.JSONL", "a.Jsonl.GZ", "a.jsonl.Zst"])
def test_suffixes_may_be_in_capitals(tmp_path: Path, name: str) -> None:
    data = '{"text": "猫"}\n'.encode()
    packed = {".gz": gzip.compress, ".zst": zstandard.compress}.get(Path(name).suffix.lower())
    (tmp_path / name).write_bytes(packed(data) if packed else data)
    assert [d.text for d in read_documents([tmp_path])] == ["猫"]
    assert [d.text for d in read_documents([tmp_path / name])] == ["猫"]


def test_a_broken_link_and_a_folder_that_cannot_be_read_are_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(CorpusError, match=r"a\.jsonl is a link to a file that does not exist"):
        corpus_files([tmp_path])

    def refuse(folder: object) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(CorpusError, match=r"cannot be read: Permission denied"):
        corpus_files([tmp_path])


def test_pipes_and_devices_are_no_corpus(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    (tmp_path / "b.txt").symlink_to("/dev/zero")
    for path in (tmp_path / "a.jsonl", tmp_path / "b.txt", tmp_path):
        with pytest.raises(CorpusError, match="is not a regular file"):
            corpus_files([path])
