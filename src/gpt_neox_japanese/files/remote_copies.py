"""Results that are made here and go elsewhere, and data of elsewhere that is kept here.

A directory elsewhere cannot appear at one moment, nor be appended to. So a result grows here, where
it can be resumed, and is copied when it is complete, with the file that says so last. Data that is
memory-mapped must lie here.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from gpt_neox_japanese.errors import ArgumentError, OutputError
from gpt_neox_japanese.files.outputs import MARKER
from gpt_neox_japanese.files.regular_files import is_plain_name
from gpt_neox_japanese.files.remote import HTTP, RemotePath

__all__ = ["check_remote_output", "fetched", "place_of_output", "upload"]

_BUFFER_BYTES = 2**20


def place_of_output(output: RemotePath) -> Path:
    """Where a result grows on this machine until it is complete; the same place for the same URL.

    Args:
        output: The directory to make.
    """
    return _cache("outputs") / _name(output, "")


def check_remote_output(output: RemotePath, place: Path, *, resumed: bool) -> None:
    """Make sure that a directory elsewhere is empty, and that it may be written, by a mark in it.

    Args:
        output: The directory to make.
        place: The directory where the result grows, with a mark to copy.
        resumed: This run was begun before, so files beside such a mark are its own.

    Raises:
        OutputError: Something is there, or http is to be written to.
        RemoteError: It cannot be written.
    """
    if output.scheme in HTTP:
        raise OutputError(f"--output {output} cannot be written by http; name a bucket, or a path")
    kind = output.kind()
    if kind == "file":
        raise OutputError(f"--output {output} exists and is a file; choose another or remove it")
    names = {file.name for file in output.files_below()} if kind == "directory" else set()
    if names - {MARKER} and not (resumed and MARKER in names):
        raise OutputError(
            f"--output {output} exists and is not empty; choose another or remove what is there"
        )
    (output / MARKER).put(place / MARKER)


def upload(directory: Path, output: RemotePath, last: str, leave: Collection[str] = ()) -> None:
    """Copy the files of a directory to where `check_remote_output` was content.

    Args:
        directory: A complete result; files whose names begin with a dot stay here.
        output: Where they go.
        last: The file by which others know that the directory is complete.
        leave: Names of other files that stay here.

    Raises:
        RemoteError: They cannot be written. They can be, later; nothing here has changed.
    """
    files = [f for f in directory.iterdir() if not (f.name.startswith(".") or f.name in leave)]
    for file in sorted(files, key=lambda file: (file.name == last, file.name)):
        (output / file.name).put(file)
    (output / MARKER).remove()


def fetched(url: str) -> Path:
    """A copy on this machine of a directory, or of a file with those that belong to it.

    It stays, and is fetched again when something elsewhere has changed. Processes that want the
    same at once wait for the one that fetches it.

    Args:
        url: A directory, or any of `NAME.bin` and `NAME.idx`, `NAME.ds` and `NAME.ds.index`; NAME
            may stand for the first two.

    Returns:
        The directory here, or the file of that name.

    Raises:
        ArgumentError: There is no such thing, or no library for the URL.
        RemoteError: It cannot be fetched.
        OSError: There is no room here.
    """
    from filelock import FileLock

    there = RemotePath.of(url)
    files, name = _what_to_fetch(there)
    listing = repr([(file.name, file.version()) for file in files])
    directory = _cache("data") / _name(there, listing)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(directory.with_name(f".{directory.name}.lock")):
        if not directory.is_dir():
            partial = directory.with_name(f".{directory.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
            partial.mkdir()
            for file in files:
                with file.open() as source, (partial / file.name).open("xb") as target:
                    shutil.copyfileobj(source, target, _BUFFER_BYTES)
            partial.rename(directory)
    return directory / name if name else directory


def _what_to_fetch(there: RemotePath) -> tuple[list[RemotePath], str]:
    """Files, and the name of the one that was meant, if it was one."""
    if there.scheme in HTTP and there.suffix not in (".bin", ".idx", ".ds", ".index"):
        raise ArgumentError(
            f"{there}: http cannot list a directory; copy it to this machine, or name a bucket"
        )
    if there.kind() == "directory":
        path = there.path.rstrip("/")
        files = [file for file in there.files_below() if file.path.rpartition("/")[0] == path]
        return [file for file in files if is_plain_name(file.name)], ""
    prefix = re.sub(r"\.(bin|idx|index)$", "", there.path)
    paths = [f"{prefix}{suffix}" for suffix in ("", ".bin", ".idx", ".index")]
    candidates = [RemotePath(there.url, path) for path in paths]
    files = [file.measured() for file in candidates if file.is_file()]
    if not files:
        raise ArgumentError(f"{there} does not exist; name what `neox-ja prepare` wrote")
    return files, there.name


def _name(there: RemotePath, more: str) -> str:
    digest = hashlib.sha256(f"{there.scheme}://{there.path}{more}".encode()).hexdigest()
    return f"{there.name or 'root'}-{digest[:12]}"


def _cache(kind: str) -> Path:
    return Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "gpt-neox-japanese", kind
    )
