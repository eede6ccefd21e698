"""Atomic file writes: whatever ends the process, a file or directory is old, new, or not there.

Nothing here knows of `--output`, which is the business of `outputs`.
"""

from __future__ import annotations

import os
import shutil
import sys
import zlib
from contextlib import suppress
from itertools import count
from pathlib import Path

__all__ = [
    "checksum",
    "discard_directory",
    "move_over",
    "publish_directory",
    "sync_directory",
    "sync_file",
    "write_file",
]

_CHUNK = 2**22


def write_file(path: Path, data: bytes) -> None:
    """Give a file new contents at one moment; until then it keeps its old ones.

    Args:
        path: The file; it need not be there yet.
        data: Its whole contents.

    Raises:
        OSError: The contents cannot be written; the file is as it was.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.unlink(missing_ok=True)  # a killed process left it, or it is a link to elsewhere
        with fresh.open("xb") as stream:
            stream.write(data)
        sync_file(fresh)
        move_over(fresh, path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def move_over(fresh: Path, path: Path) -> None:
    """Put a file in the place of another, also where readers have that one mapped.

    Args:
        fresh: The file with the new contents, on the same disk; it is gone afterwards.
        path: The file that is replaced, if it is there.

    Raises:
        OSError: That is not possible; the file is as it was.
    """
    try:
        fresh.replace(path)
        return
    except PermissionError:
        # Windows replaces no file that somebody has mapped, but lets it have another name.
        if not path.is_file():
            raise
    names = (path.with_name(f".{path.name}.{number}.old") for number in count())
    aside = next(name for name in names if not name.exists())
    path.rename(aside)
    try:
        fresh.rename(path)
    except OSError:
        aside.rename(path)
        raise
    for old in path.parent.glob(f".{path.name}.*.old"):
        number = old.name.removeprefix(f".{path.name}.").removesuffix(".old")
        with suppress(OSError):  # somebody still reads it; a later time it goes
            if number.isdecimal():
                old.unlink()


def publish_directory(partial: Path, final: Path) -> None:
    """Give a directory whose files are synced its name, in the place of one that has it.

    Args:
        partial: The directory, under another name beside `final`; every file is synced.
        final: The name it gets.

    Raises:
        OSError: That is not possible.
    """
    sync_directory(partial)
    if final.exists():
        discard_directory(final)
    partial.rename(final)
    sync_directory(final.parent)


def discard_directory(directory: Path) -> None:
    """Remove a directory that nobody may find half removed.

    Args:
        directory: It exists.

    Raises:
        OSError: That is not possible; the directory is as it was.
    """
    hidden = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    directory.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def sync_file(path: Path) -> None:
    """Return only when the file's contents are on the disk.

    Args:
        path: Of a file that may be written.

    Raises:
        OSError: The disk is full or fails.
    """
    with path.open("r+b") as stream:  # Windows syncs no file that is only open for reading
        os.fsync(stream.fileno())


def sync_directory(directory: Path) -> None:
    """Return only when the names in a directory are on the disk, where a system can be asked.

    Args:
        directory: It exists.

    Raises:
        OSError: The disk fails.
    """
    if sys.platform == "win32":  # opens no directories; NTFS keeps a journal of names itself
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(path: Path) -> tuple[int, int]:
    """How many bytes a file has, and their CRC-32.

    Args:
        path: Of the file.

    Raises:
        OSError: It cannot be read.
    """
    size = crc = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            crc = zlib.crc32(chunk, crc)
    return size, crc
