from __future__ import annotations

import gzip
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import zstandard

from gpt_neox_japanese.corpus import (
    Block,
    Document,
    Layout,
    blocks,
    corpus_files,
    decompression,
    is_held_out,
    map_blocks,
    parts,
    read_blocks,
    read_documents,
)
from gpt_neox_japanese.errors import CorpusError

LINES = [{"id": "a", "text": "吾輩は猫である。"}, {"text": "名前はまだ無い。"}]


def write_jsonl(path: Path, lines: list[object]) -> Path:
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    packed = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix)
    path.write_bytes(packed(data) if packed else data)
    return path


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and parts end with the first document."""
    monkeypatch.setattr(parts, "_BYTES_OF_LINES", 1)
    monkeypatch.setattr(blocks, "_BYTES_PER_BLOCK", 1)
    # Chunks shorter than a line, so that lines are joined from several.
    monkeypatch.setattr(decompression, "_CHUNK_BYTES", 20)
    monkeypatch.setattr(decompression, "_PACKED_BYTES", 20)


def write_parquet(path: Path, columns: dict[str, list[Any]], rows_per_group: int) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(columns), path, row_group_size=rows_per_group)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_json_line_is_a_document(tmp_path: Path, suffix: str) -> None:
    file = write_jsonl(tmp_path / f"works.jsonl{suffix}", [*LINES])
    documents = list(read_documents([file]))
    assert [d.text for d in documents] == [line["text"] for line in LINES]
    assert [d.id for d in documents] == ["a", f"{file.name}:2"]
    assert [(d.file, d.line) for d in documents] == [(file, 1), (file, 2)]


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


def test_a_parquet_row_is_a_document(tmp_path: Path) -> None:
    texts = [f"{n}猫" for n in range(25)]
    file = write_parquet(tmp_path / "a.parquet", {"id": [*range(25)], "text": texts}, 10)
    cut = list(read_blocks([file], Layout()))
    assert [len(block.parts) for block in cut] == [3]
    assert sum(block.size for block in cut) == file.stat().st_size
    found = list(read_documents([file]))
    assert [(d.id, d.text, d.line) for d in found] == [
        (str(n), text, n + 1) for n, text in enumerate(texts)
    ]
    (tmp_path / "b").mkdir()
    unnamed = write_parquet(tmp_path / "b" / "b.parquet", {"text": ["猫"]}, 1)
    assert [d.id for d in read_documents([unnamed])] == ["b.parquet:1"]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"body": ["猫"]}, r"a\.parquet has no column 'text', only body"),
        ({"text": [1]}, r"column 'text' holds int64, expected string"),
        ({"text": ["猫", None]}, r"a\.parquet, row 2: 'text' is null"),
    ],
)
def test_a_broken_parquet_file_or_row_is_named(
    tmp_path: Path, columns: dict[str, list[Any]], problem: str
) -> None:
    file = write_parquet(tmp_path / "a.parquet", columns, 10)
    with pytest.raises(CorpusError, match=problem):
        list(read_documents([file]))


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for data in (b"", b"plain text"):
        (tmp_path / "a.parquet").write_bytes(data)
        with pytest.raises(CorpusError, match=r"a\.parquet cannot be read"):
            list(read_documents([tmp_path]))


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


def test_a_text_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "sjis.txt").write_bytes("一\n二".encode() + "三".encode("shift_jis"))
    with pytest.raises(CorpusError, match=r"sjis\.txt, line 2: not UTF-8"):
        list(read_documents([tmp_path]))


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [*LINES])
    (block,) = read_blocks([file], Layout())
    file.unlink()
    (error,) = block.documents()
    assert isinstance(error, CorpusError)
    assert "a.jsonl cannot be read" in str(error)


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


def characters(block: Block) -> list[int]:
    return [len(d.text) for d in block.documents() if not isinstance(d, CorpusError)]


def test_results_come_in_order_from_one_process_and_from_several(
    tmp_path: Path, tiny_blocks: None
) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": "猫" * n} for n in range(40)])
    alone, shared = (
        list(map_blocks(characters, read_blocks([file], Layout()), workers)) for workers in (1, 2)
    )
    assert alone == shared
    assert [n for _, found in shared for n in found] == list(range(40))


def end_this_process(block: Block) -> None:
    os._exit(9)


def test_a_worker_that_the_system_ends_is_told(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [*LINES])
    with pytest.raises(ChildProcessError, match="fewer --workers"):
        list(map_blocks(end_this_process, read_blocks([file], Layout()), 2))


KILLED = """
import os, signal, sys
from pathlib import Path
from gpt_neox_japanese.corpus import Layout, map_blocks, read_blocks

if __name__ == "__main__":
    blocks = list(read_blocks([Path(sys.argv[1])], Layout())) * 9
    for _ in map_blocks(id, blocks, 2):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [*LINES])
    program = tmp_path / "program.py"
    program.write_text(KILLED, encoding="utf-8")
    parent = subprocess.Popen([sys.executable, program, file], stdout=subprocess.PIPE)
    # The workers hold the pipe as well: it ends when the last of them does.
    parent.communicate(timeout=60)
    assert parent.returncode == -signal.SIGKILL


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


MEMBERS = gzip.compress('{"text": "一"}\n'.encode()) + gzip.compress('{"text": "二"}\n'.encode())


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (bytes(1), ""),
        (bytes(100_000), ""),
        (b"\x1a", "passed over: what follows the archive in"),
        (bytes(7) + b"signature", "passed over: what follows the archive in"),
        (b"junk" * 50_000, "passed over: what follows the archive in"),
    ],
    ids=["a zero", "zeros", "one byte", "zeros and bytes", "more than is read at once"],
)
def test_what_follows_a_gz_archive_is_passed_over_as_gzip_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tail: bytes, said: str
) -> None:
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(MEMBERS + tail)
    cut = list(read_blocks([file], Layout()))
    found = [d for block in cut for d in block.documents()]
    assert [d.text for d in found if not isinstance(d, CorpusError)] == ["一", "二"]
    assert len(found) == 2
    assert sum(block.size for block in cut) == file.stat().st_size
    told = capsys.readouterr().err
    assert (said in told and str(file) in told) if said else told == ""
    if len(tail) > 1 and (program := shutil.which("gzip")):  # it takes one byte for a cut
        done = subprocess.run([program, "-dc", file], capture_output=True, check=False)
        assert done.returncode in (0, 2)  # 2 is a warning
        assert done.stdout.decode() == '{"text": "一"}\n{"text": "二"}\n'


def test_a_gz_text_with_padding_is_a_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("猫".encode()) + bytes(512))
    assert [d.text for d in read_documents([tmp_path])] == ["猫"]


@pytest.mark.parametrize("damage", ["checksum", "second checksum", "end", "start"])
def test_a_damaged_gz_archive_is_no_padding(tmp_path: Path, damage: str) -> None:
    data = bytearray(MEMBERS)
    first = len(gzip.compress('{"text": "一"}\n'.encode()))
    if damage == "checksum":
        data[first - 8] ^= 1
    elif damage == "second checksum":
        data[-8] ^= 1
    elif damage == "end":
        del data[-5:]
    else:
        data += b"\x1f"
    (tmp_path / "a.jsonl.gz").write_bytes(data)
    with pytest.raises(CorpusError, match=r"a\.jsonl\.gz cannot be read"):
        list(read_documents([tmp_path]))


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


def zst_with_window(window_log: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress("猫".encode()) + packer.flush()


@pytest.mark.parametrize("window_log", [28, 31])
def test_a_zst_archive_with_a_long_window_is_read(tmp_path: Path, window_log: int) -> None:
    data = zst_with_window(window_log)
    assert zstandard.get_frame_parameters(data).window_size == 2**window_log
    (tmp_path / "a.txt.zst").write_bytes(data)
    assert [d.text for d in read_documents([tmp_path])] == ["猫"]


def test_a_zst_archive_with_a_longer_window_is_refused_with_the_remedy(tmp_path: Path) -> None:
    data = bytearray(zst_with_window(31))
    assert data[5] == (31 - 10) << 3
    data[5] = (32 - 10) << 3
    (tmp_path / "a.txt.zst").write_bytes(data)
    with pytest.raises(CorpusError, match=r"a\.txt\.zst.*2,147,483,648 bytes.*--long=31"):
        list(read_documents([tmp_path]))


@pytest.mark.parametrize("at_once", [3, 2**14])
def test_skippable_frames_of_a_zst_archive_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(decompression, "_PACKED_BYTES", at_once)
    skipped = bytes.fromhex("502a4d1805000000") + b"notes"
    frames = [zstandard.compress(text.encode()) for text in ("吾輩は", "猫である")]
    (tmp_path / "a.txt.zst").write_bytes(skipped + frames[0] + skipped + frames[1] + skipped)
    assert [d.text for d in read_documents([tmp_path])] == ["吾輩は猫である"]


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


def test_windows_gets_no_more_workers_than_it_can_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [*LINES])
    asked: list[int] = []

    def pool(workers: int, *_: object, **__: object) -> None:
        asked.append(workers)
        raise StopIteration

    monkeypatch.setattr("gpt_neox_japanese.corpus.parallel.ProcessPoolExecutor", pool)
    for system in ("win32", "linux"):
        monkeypatch.setattr(sys, "platform", system)
        with pytest.raises(RuntimeError):
            next(map_blocks(characters, read_blocks([file], Layout()), 100))
    assert asked == [61, 100]


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


def test_a_parquet_row_whose_id_cannot_be_read_is_an_error_in_its_place(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    raw = pyarrow.array([b"a", b"\xff", b"c"], pyarrow.binary())
    ids = pyarrow.Array.from_buffers(pyarrow.string(), 3, raw.buffers())
    dates = pyarrow.array([0, 2**62, 0], pyarrow.timestamp("us"))
    for name, column, said in (("a", ids, "not UTF-8"), ("b", dates, "out of range")):
        file = tmp_path / f"{name}.parquet"
        parquet.write_table(pyarrow.table({"text": ["x", "y", "z"], "id": column}), file)
        (block,) = read_blocks([file], Layout())
        found = list(block.documents())
        assert f"{file}, row 2: " in str(found[1])
        assert said in str(found[1])
        assert [type(document) for document in found] == [Document, CorpusError, Document]


def test_a_parquet_file_with_a_column_twice_is_named(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = [pyarrow.array(["x"]), pyarrow.array(["y"])]
    file = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table(columns, names=["text", "text"]), file)
    with pytest.raises(CorpusError, match="has 2 columns 'text'"):
        list(read_documents([file]))


def test_pipes_and_devices_are_no_corpus(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    (tmp_path / "b.txt").symlink_to("/dev/zero")
    for path in (tmp_path / "a.jsonl", tmp_path / "b.txt", tmp_path):
        with pytest.raises(CorpusError, match="is not a regular file"):
            corpus_files([path])
