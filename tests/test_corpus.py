from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest
import zstandard

from gpt_neox_japanese.corpus import corpus_files, is_held_out, read_documents
from gpt_neox_japanese.errors import CorpusError

LINES = [{"id": "a", "text": "吾輩は猫である。"}, {"text": "名前はまだ無い。"}]


def write_jsonl(path: Path, lines: list[object]) -> Path:
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    packed = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix)
    path.write_bytes(packed(data) if packed else data)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_json_line_is_a_document(tmp_path: Path, suffix: str) -> None:
    file = write_jsonl(tmp_path / f"works.jsonl{suffix}", [*LINES])
    documents = list(read_documents([file]))
    assert [d.text for d in documents] == [line["text"] for line in LINES]
    assert [d.id for d in documents] == ["a", f"{file.name}:2"]
    assert [(d.file, d.line) for d in documents] == [(file, 1), (file, 2)]


def test_an_archive_of_several_frames_is_read_to_its_end(tmp_path: Path) -> None:
    frames = [zstandard.compress(text.encode()) for text in ("吾輩は", "", "猫である" * 50_000)]
    (tmp_path / "a.txt.zst").write_bytes(b"".join(frames))
    (document,) = read_documents([tmp_path])
    assert document.text == "吾輩は" + "猫である" * 50_000


def test_a_text_file_is_a_document_named_after_it(tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text("一行目\n二行目\n", encoding="utf-8")
    (document,) = read_documents([tmp_path / "novel.txt"])
    assert (document.id, document.text) == ("novel.txt", "一行目\n二行目\n")


def test_carriage_returns_and_a_separator_inside_a_json_string_survive(tmp_path: Path) -> None:
    text = "一\r\n二\u2028三"
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": text}])
    assert [d.text for d in read_documents([file])] == [text]


def test_a_directory_is_its_corpus_files_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a.jsonl", "notes.md", "c/d.txt.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [f.relative_to(tmp_path).as_posix() for f in corpus_files([tmp_path])]
    assert found == ["a.jsonl", "b.txt", "c/d.txt.gz"]


def test_documents_are_read_only_when_they_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "一"}\nnot json\n', encoding="utf-8")
    documents = read_documents([file])
    assert next(documents).text == "一"
    with pytest.raises(CorpusError, match=r"a\.jsonl, line 2: not JSON"):
        next(documents)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"text": "\xff"}', "not UTF-8"),
        (b'{"body": ""}', 'string "text"'),
        (b'{"text": 1}', 'string "text"'),
        (b"[1]", 'string "text"'),
        (b'{"text": "\\ud83d"}', r"U\+D83D at character 0"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: bytes, problem: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n" + line + b"\n")
    with pytest.raises(CorpusError, match=rf"a\.jsonl, line 2: .*{problem}"):
        list(read_documents([tmp_path]))


def test_a_text_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "sjis.txt").write_bytes("一\n二".encode() + "三".encode("shift_jis"))
    with pytest.raises(CorpusError, match=r"sjis\.txt, line 2: not UTF-8"):
        list(read_documents([tmp_path]))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_truncated_or_foreign_archive_is_named(tmp_path: Path, suffix: str) -> None:
    file = write_jsonl(tmp_path / f"a.jsonl{suffix}", [*LINES] * 100)
    for data in (file.read_bytes()[:-9], b"plain text"):
        file.write_bytes(data)
        with pytest.raises(CorpusError, match=r"a\.jsonl"):
            list(read_documents([file]))


def test_what_is_missing_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").touch()
    with pytest.raises(CorpusError, match="does not exist"):
        corpus_files([tmp_path / "none.txt"])
    with pytest.raises(CorpusError, match="unknown kind"):
        corpus_files([tmp_path / "a.pdf"])
    with pytest.raises(CorpusError, match="no corpus files"):
        corpus_files([tmp_path])


def test_a_missing_zstandard_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_jsonl(tmp_path / "a.jsonl.zst", [*LINES])
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(CorpusError, match=r"pip install 'gpt-neox-japanese\[train\]'"):
        list(read_documents([file]))


def test_the_held_out_part_has_the_size_asked_for_and_grows_with_it() -> None:
    ids = [str(number) for number in range(20_000)]
    small, large = ({i for i in ids if is_held_out(i, fraction)} for fraction in (0.01, 0.05))
    assert small < large
    assert len(small) == pytest.approx(200, rel=0.3)
    assert len(large) == pytest.approx(1000, rel=0.15)
    assert not any(is_held_out(i, 0) for i in ids)
    assert all(is_held_out(i, 1) for i in ids)
    assert is_held_out("1", 0.5) == is_held_out("1", 0.5)


def test_the_held_out_decision_never_changes() -> None:
    held = [number for number in range(300) if is_held_out(str(number), 0.01)]
    assert held == [178, 245, 286]
