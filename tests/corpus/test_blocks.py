from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from gpt_neox_japanese.corpus import (
    Layout,
    blocks,
    corpus_files,
    decompression,
    parts,
    read_blocks,
)
from gpt_neox_japanese.errors import CorpusError
from tests.corpus.files import LINES, write_jsonl


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_blocks_hold_what_the_file_holds_and_take_all_its_bytes(
    tmp_path: Path, suffix: str, tiny_blocks: None
) -> None:
    lines: list[object] = [{"id": str(n), "text": f"{n}" * n * 17} for n in range(300)]
    file = write_jsonl(tmp_path / f"works.jsonl{suffix}", lines)
    cut = list(read_blocks([file], Layout()))
    assert len(cut) > 5
    found = [d for block in pickle.loads(pickle.dumps(cut)) for d in block.documents()]
    assert [(d.id, d.text, d.line) for d in found] == [
        (str(n), f"{n}" * n * 17, n + 1) for n in range(300)
    ]
    assert sum(block.size for block in cut) == file.stat().st_size


def test_small_files_share_a_block(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.jsonl"):
        (tmp_path / name).write_text('{"text": "猫"}\n', encoding="utf-8")
    (block,) = read_blocks(corpus_files([tmp_path]), Layout())
    assert len(list(block.documents())) == 3


def test_a_block_gives_errors_in_the_place_of_broken_documents(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "一"}\n?\n{"text": "三"}\n', encoding="utf-8")
    (tmp_path / "b.txt").write_bytes(b"\xff")
    (tmp_path / "c.txt.gz").write_bytes(b"plain text")
    (tmp_path / "d.txt").write_text("四", encoding="utf-8")
    (block,) = read_blocks(corpus_files([tmp_path]), Layout())
    found = [str(d) if isinstance(d, CorpusError) else d.text for d in block.documents()]
    assert [found[0], found[2], found[5]] == ["一", "三", "四"]
    assert "a.jsonl, line 2" in found[1]
    assert "b.txt, line 1: not UTF-8" in found[3]
    assert "c.txt.gz cannot be read" in found[4]


def test_whole_lines_before_a_truncation_are_read(tmp_path: Path, tiny_blocks: None) -> None:
    lines: list[object] = [{"text": str(n)} for n in range(200)]
    file = write_jsonl(tmp_path / "a.jsonl.gz", lines)
    file.write_bytes(file.read_bytes()[:-40])
    *found, error = [d for b in read_blocks([file], Layout()) for d in b.documents()]
    assert isinstance(error, CorpusError)
    assert "truncated" in str(error)
    texts = [d.text for d in found if not isinstance(d, CorpusError)]
    assert texts
    assert texts == [str(n) for n in range(len(found))]


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [*LINES])
    (block,) = read_blocks([file], Layout())
    file.unlink()
    (error,) = block.documents()
    assert isinstance(error, CorpusError)
    assert "a.jsonl cannot be read" in str(error)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_blocks_do_not_depend_on_how_much_a_library_unpacks_at_once(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_BYTES_OF_LINES", 500)
    monkeypatch.setattr(blocks, "_BYTES_PER_BLOCK", 3000)
    monkeypatch.setattr(decompression, "_CHUNK_BYTES", 100)
    lines: list[object] = [{"text": f"{n}" * 7} for n in range(4000)]
    file = write_jsonl(tmp_path / f"a.jsonl{suffix}", lines)
    read = decompression._read_gz if suffix == ".gz" else decompression._read_zst

    def firsts() -> list[int]:
        return [part.first for b in read_blocks([file], Layout()) for part in b.parts[:1]]

    expected = firsts()
    assert len(expected) > 5

    def otherwise(stream: Any) -> Any:
        whole = b"".join(piece for piece, _ in read(stream))
        for start in range(0, len(whole), 777):
            yield whole[start : start + 777], file.stat().st_size

    monkeypatch.setattr(decompression, read.__name__, otherwise)
    assert firsts() == expected
