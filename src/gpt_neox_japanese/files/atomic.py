"""Files that are whole or not there, whatever ends the process while they are written."""

from __future__ import annotations

import os
import shutil
import zlib
from pathlib import Path

from gpt_neox_japanese.files.outputs import replace, sync_directory

__all__ = ["checksum", "discard_directory", "publish_directory", "replace_file", "sync_file"]

_CHUNK = 2**22


def replace_file(path: Path, data: bytes) -> None:
    """Give a file new contents at one moment; until then it keeps its old ones.

    Raises:
        OSError: the contents cannot be written; the file is as it was.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_bytes(data)
        sync_file(fresh)
        replace(fresh, path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def publish_directory(partial: Path, final: Path) -> None:
    """Give a directory whose files are synced its name, in the place of one that has it."""
    sync_directory(partial)
    if final.exists():
        discard_directory(final)
    partial.rename(final)
    sync_directory(final.parent)


def discard_directory(directory: Path) -> None:
    """Remove a directory that nobody may find half removed."""
    hidden = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    directory.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def sync_file(path: Path) -> None:
    """Return only when the file's contents are on the disk."""
    with path.open("r+b") as stream:  # Windows syncs no file that is only open for reading
        os.fsync(stream.fileno())


def checksum(path: Path) -> tuple[int, int]:
    """Bytes of a file and their CRC-32."""
    size = crc = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            crc = zlib.crc32(chunk, crc)
    return size, crc
