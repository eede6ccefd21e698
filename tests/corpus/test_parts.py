from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from gpt_neox_japanese.corpus import (
    Layout,
    read_documents,
)
from gpt_neox_japanese.errors import CorpusError
from tests.corpus.files import LINES, write_jsonl


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_json_line_is_a_document(tmp_path: Path, suffix: str) -> None:
    file = write_jsonl(tmp_path / f"works.jsonl{suffix}", [*LINES])
    documents = list(read_documents([file]))
    assert [d.text for d in documents] == [line["text"] for line in LINES]
    assert [d.id for d in documents] == ["a", f"{file.name}:2"]
    assert [(d.file, d.line) for d in documents] == [(file, 1), (file, 2)]


def test_other_fields_hold_text_and_id_when_the_layout_says_so(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": "犬", "body": "猫", "key": 7}])
    (document,) = read_documents([file], Layout(text_field="body", id_field="key"))
    assert (document.id, document.text) == ("7", "猫")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_every_line_of_a_text_file_is_a_document_when_the_layout_says_so(
    tmp_path: Path, suffix: str
) -> None:
    data = "\ufeff一行目\r\n\n二行目".encode()
    file = tmp_path / f"a.txt{suffix}"
    file.write_bytes(gzip.compress(data) if suffix else data)
    documents = list(read_documents([file], Layout(split_lines=True)))
    assert [(d.id, d.text) for d in documents] == [
        (f"{file.name}:1", "一行目"),
        (f"{file.name}:3", "二行目"),
    ]


def test_a_text_file_is_a_document_named_after_it(tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text("一行目\n二行目\n", encoding="utf-8")
    (document,) = read_documents([tmp_path / "novel.txt"])
    assert (document.id, document.text) == ("novel.txt", "一行目\n二行目\n")


def test_carriage_returns_and_a_separator_inside_a_json_string_survive(tmp_path: Path) -> None:
    text = "一\r\n二\u2028三"
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": text}])
    assert [d.text for d in read_documents([file])] == [text]


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
