"""Which files a corpus has, and what was passed over."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from gpt_neox_japanese.errors import CorpusError
from gpt_neox_japanese.files.regular_files import check_regular
from gpt_neox_japanese.files.remote import AnyPath, RemotePath, as_path

__all__ = ["compression_of", "corpus_files", "kind_of"]

_COMPRESSIONS = ("", ".gz", ".zst")
_SUFFIXES = (
    *(kind + packed for kind in (".txt", ".jsonl") for packed in _COMPRESSIONS),
    ".parquet",
)
_LISTED = 6  # reasons, in a line that says what was passed over


def corpus_files(paths: Iterable[str | AnyPath]) -> list[AnyPath]:
    """Every corpus file under `paths`: files as given, directories as their sorted contents.

    The suffix says what a file is, in capitals too. What else a directory holds is passed over,
    and one line on stderr says what that was.

    Args:
        paths: Files and directories: paths, or URLs of fsspec such as s3://bucket/corpus.

    Returns:
        The files.

    Raises:
        CorpusError: A path does not exist, cannot be read, is of an unknown kind, is a directory
            without texts, or needs a library that is not installed.
        ArgumentError: A library for a URL is not installed.
        RemoteError: Another machine does not answer.
    """
    files: list[AnyPath] = []
    passed_over: Counter[str] = Counter()
    for given in paths:
        path = as_path(given)
        kind = _kind_of_path(path)
        if kind == "directory":
            found = _corpus_files_in(path, passed_over)
            if not found:
                raise CorpusError(
                    f"{path} holds no corpus files; expected {', '.join(_SUFFIXES)}"
                    + (f", found {_listed(passed_over)}" if passed_over else "")
                )
            files.extend(found)
        elif kind is None:
            raise CorpusError(f"{path} does not exist")
        elif not _is_corpus_file(path):
            raise CorpusError(f"{path} is of an unknown kind; expected {', '.join(_SUFFIXES)}")
        else:
            files.append(_checked(path))
    if passed_over:
        print(f"passed over: {_listed(passed_over)}", file=sys.stderr)
    _check_libraries(files)
    return files


def kind_of(file: AnyPath) -> str:
    """`.txt`, `.jsonl` or `.parquet`, whether compressed or not.

    Args:
        file: A corpus file.

    Returns:
        The suffix without that of the compression, in small letters.
    """
    name = file.name.lower().removesuffix(compression_of(file))
    return name[name.rindex(".") :]


def compression_of(file: AnyPath) -> str:
    """`.gz`, `.zst`, or nothing.

    Args:
        file: Any file.

    Returns:
        The suffix, in small letters.
    """
    suffix = file.suffix.lower()
    return suffix if suffix in _COMPRESSIONS else ""


def _kind_of_path(path: AnyPath) -> str | None:
    if isinstance(path, RemotePath):
        return path.kind()
    if path.is_dir():
        return "directory"
    return "file" if path.exists() else None


def _checked(file: AnyPath) -> AnyPath:
    """The file itself if it can be read as one, with its size if it is elsewhere."""
    if isinstance(file, RemotePath):
        return file if file.size is not None else file.measured()
    check_regular(file, CorpusError)
    return file


def _is_corpus_file(path: AnyPath) -> bool:
    return path.name.lower().endswith(_SUFFIXES)


def _corpus_files_in(directory: AnyPath, passed_over: Counter[str]) -> list[AnyPath]:
    """The corpus files of a directory and those below it; others are counted by reason."""
    found: list[AnyPath] = []
    for path in _entries_below(directory):
        if path.name.startswith("._"):
            passed_over["._* (macOS's notes on files)"] += 1
        elif isinstance(path, Path) and path.is_dir():
            passed_over["links to directories (name their targets)"] += 1
        elif not _is_corpus_file(path):
            passed_over[f"*{path.suffix.lower()}" if path.suffix else "without suffix"] += 1
        elif isinstance(path, Path) and not path.exists():
            raise CorpusError(f"{path} is a link to a file that does not exist")
        else:
            found.append(_checked(path))
    # The order of names, which a file system that takes capitals for small letters has not.
    return sorted(found, key=_parts_of)


def _parts_of(file: AnyPath) -> tuple[str, ...]:
    return file.parts if isinstance(file, Path) else tuple(file.path.split("/"))


def _entries_below(directory: AnyPath) -> Iterator[AnyPath]:
    """Everything below a directory but true directories. Links to directories are not followed."""
    if isinstance(directory, RemotePath):
        yield from directory.files_below()
        return

    def fail(error: OSError) -> NoReturn:
        raise CorpusError(f"{error.filename} cannot be read: {error.strerror}") from error

    for folder, folders, names in os.walk(directory, onerror=fail):
        yield from (Path(folder, name) for name in names)
        yield from (path for name in folders if (path := Path(folder, name)).is_symlink())


def _listed(passed_over: Counter[str]) -> str:
    counted = [f"{count:,} {reason}" for reason, count in passed_over.most_common(_LISTED)]
    if more := passed_over.total() - sum(n for _, n in passed_over.most_common(_LISTED)):
        counted.append(f"{more:,} others")
    unknown = any(not reason.endswith(")") for reason in passed_over)
    kinds = "; a corpus file is .txt or .jsonl, also .gz or .zst, or .parquet" * unknown
    return ", ".join(counted) + kinds


def _check_libraries(files: Iterable[AnyPath]) -> None:
    """Import what reading the files needs, so that nothing is missing hours later."""
    suffixes = {file.suffix.lower() for file in files}
    try:
        if ".zst" in suffixes:
            import zstandard  # noqa: F401
        if ".parquet" in suffixes:
            import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        library = str(error.name).partition(".")[0]
        suffix, extra = {"zstandard": (".zst", "train"), "pyarrow": (".parquet", "parquet")}[
            library
        ]
        raise CorpusError(
            f"reading {suffix} files needs {library}: pip install 'gpt-neox-japanese[{extra}]'"
        ) from None
