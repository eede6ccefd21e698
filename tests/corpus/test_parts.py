from __future__ import annotations

import gzip
import random
import tracemalloc
from pathlib import Path

import pytest
import zstandard

from gpt_neox_japanese.corpus import Document, Layout, read_blocks, read_documents
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


@pytest.mark.parametrize("line", [b"", b" \r"])
def test_a_first_line_of_nothing_but_a_byte_order_mark_is_blank(
    tmp_path: Path, line: bytes
) -> None:
    start = b"\xef\xbb\xbf" + line
    (tmp_path / "a.txt").write_bytes(start + b"\nb")
    (tmp_path / "b.jsonl").write_bytes(start + b'\n{"text": "b"}')
    found = list(read_documents([tmp_path], Layout(split_lines=True)))
    assert [(document.line, document.text) for document in found] == [(2, "b")] * 2


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


@pytest.fixture
def short_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a few bytes, and documents of 40 bytes at most."""
    monkeypatch.setattr("gpt_neox_japanese.corpus.decompression._CHUNK_BYTES", 7)
    monkeypatch.setattr("gpt_neox_japanese.corpus.parts._BYTES_OF_LINES", 30)
    monkeypatch.setattr("gpt_neox_japanese.corpus.parts.MAX_DOCUMENT_BYTES", 40)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("newline", ["\n", ""])
def test_a_line_that_is_too_long_is_an_error_in_its_place(
    tmp_path: Path, short_documents: None, suffix: str, newline: str
) -> None:
    draw = random.Random(0)
    for _ in range(50):
        lines = ["x" * draw.choice((1, 9, 38, 39, 40, 41, 200)) for _ in range(draw.randint(1, 9))]
        file = tmp_path / f"a.txt{suffix}"
        pack(file, ("\n".join(lines) + newline).encode())
        blocks = list(read_blocks([file], Layout(split_lines=True)))
        found = [
            (str(document).partition(":")[0] if isinstance(document, CorpusError) else document.id)
            for block in blocks
            for document in block.documents()
        ]
        limit = [40] * (len(lines) - 1) + [40 + (not newline)]
        assert found == [
            f"a.txt{suffix}:{number}" if len(line) < most else f"{file}, line {number}"
            for number, (line, most) in enumerate(zip(lines, limit, strict=True), start=1)
        ]
        assert sum(block.size for block in blocks) == file.stat().st_size


def pack(file: Path, data: bytes) -> None:
    packed = {
        ".gz": gzip.compress,
        ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
    }.get(file.suffix, bytes)
    file.write_bytes(packed(data))


@pytest.mark.parametrize("name", ["bomb.jsonl.zst", "bomb.txt.zst"])
def test_a_long_line_in_a_small_archive_takes_little_memory(tmp_path: Path, name: str) -> None:
    frame = zstandard.ZstdCompressor().compress(b"a" * 2**26)
    file = tmp_path / name
    file.write_bytes(frame * 12)
    assert file.stat().st_size < 10**5
    tracemalloc.start()
    try:
        with pytest.raises(CorpusError, match=r"67,108,864 bytes.*split"):
            list(read_documents([file]))
        assert tracemalloc.get_traced_memory()[1] < 2**28
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"text": "x", "id": "\\ud800"}', "lone surrogate"),
        (b'{"text": "x", "id": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"text": "x", "n": -' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"text": "x", "id": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "recursion"),
    ],
    ids=["surrogate", "digits", "other digits", "depth"],
)
def test_a_line_with_an_impossible_id_is_an_error_in_its_place(
    tmp_path: Path, line: bytes, said: str
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "a"}\n' + line + b'\n{"text": "b"}\n')
    (block,) = read_blocks([file], Layout())
    first, error, last = block.documents()
    assert isinstance(error, CorpusError)
    assert f"{file}, line 2: " in str(error)
    assert said in str(error)
    assert [d.text for d in (first, last) if isinstance(d, Document)] == ["a", "b"]
