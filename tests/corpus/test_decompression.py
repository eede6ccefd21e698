from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest
import zstandard

from gpt_neox_japanese.corpus import (
    Layout,
    decompression,
    read_blocks,
    read_documents,
)
from gpt_neox_japanese.errors import CorpusError
from tests.corpus.files import LINES, write_jsonl


def test_an_archive_of_several_frames_is_read_to_its_end(tmp_path: Path) -> None:
    frames = [zstandard.compress(text.encode()) for text in ("吾輩は", "", "猫である" * 50_000)]
    (tmp_path / "a.txt.zst").write_bytes(b"".join(frames))
    (document,) = read_documents([tmp_path])
    assert document.text == "吾輩は" + "猫である" * 50_000


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_truncated_or_foreign_archive_is_named(tmp_path: Path, suffix: str) -> None:
    file = write_jsonl(tmp_path / f"a.jsonl{suffix}", [*LINES] * 100)
    for data in (file.read_bytes()[:-9], b"plain text", file.read_bytes()[:1], b""):
        file.write_bytes(data)
        with pytest.raises(CorpusError, match=r"a\.jsonl"):
            list(read_documents([file]))


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.txt.gz", gzip.compress(b"")), ("a.txt.zst", zstandard.compress(b"")), ("a.txt", b"")],
    ids=["gz", "zst", "plain"],  # compressed data holds the time, and names of tests may not
)
def test_an_archive_of_nothing_is_an_empty_text_and_a_file_of_nothing_no_archive(
    tmp_path: Path, name: str, data: bytes
) -> None:
    (tmp_path / name).write_bytes(data)
    assert [document.text for document in read_documents([tmp_path / name])] == [""]
    if name != "a.txt":
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(CorpusError, match="it is truncated"):
            list(read_documents([tmp_path / name]))


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


def zst_with_window(window_log: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress("猫".encode()) + packer.flush()


@pytest.mark.parametrize("window_log", [27, 28])
def test_a_zst_archive_with_a_long_window_is_read(tmp_path: Path, window_log: int) -> None:
    data = zst_with_window(window_log)
    assert zstandard.get_frame_parameters(data).window_size == 2**window_log
    (tmp_path / "a.txt.zst").write_bytes(data)
    assert [d.text for d in read_documents([tmp_path])] == ["猫"]


@pytest.mark.parametrize("window_log", [29, 31])
def test_a_zst_archive_with_a_longer_window_is_refused_with_the_remedy(
    tmp_path: Path, window_log: int
) -> None:
    (tmp_path / "a.txt.zst").write_bytes(zst_with_window(window_log))
    with pytest.raises(CorpusError, match=r"a\.txt\.zst.*268,435,456 bytes.*zstd -d --long=31"):
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
