from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path

import pytest

from gpt_neox_japanese.files.atomic import (
    checksum,
    discard_directory,
    move_over,
    publish_directory,
    write_file,
)


def names(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir())


def test_a_file_has_its_new_contents_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    for data in (b"old", b"new and longer", b""):
        write_file(file, data)
        assert file.read_bytes() == data
    assert names(tmp_path) == ["state.json"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_old_contents_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = tmp_path / "state.json"
    write_file(file, b"old")
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        write_file(file, b"new")
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == ["state.json"]


def test_a_file_is_not_put_in_the_place_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "fresh").write_bytes(b"new")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        move_over(tmp_path / "fresh", tmp_path / "taken")
    assert names(tmp_path) == ["fresh", "taken"]


def test_a_directory_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    for name, data in (("final", b"old"), ("partial", b"new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(data)
    publish_directory(tmp_path / "partial", tmp_path / "final")
    assert (tmp_path / "final" / "weights").read_bytes() == b"new"
    assert names(tmp_path) == ["final"]


def test_a_directory_is_removed_though_an_earlier_removal_was_cut_short(tmp_path: Path) -> None:
    for name in ("state", ".state.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").touch()
    discard_directory(tmp_path / "state")
    assert names(tmp_path) == []


def test_a_checksum_is_of_all_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 20_000  # more than is read at once
    (tmp_path / "file").write_bytes(data)
    assert checksum(tmp_path / "file") == (len(data), zlib.crc32(data))
