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

__all__ = ["compression_of", "corpus_files", "kind_of"]

_COMPRESSIONS = ("", ".gz", ".zst")
_SUFFIXES = (
    *(kind + packed for kind in (".txt", ".jsonl") for packed in _COMPRESSIONS),
    ".parquet",
)
_LISTED = 6  # reasons, in a line that says what was passed over


def corpus_files(paths: Iterable[str | Path]) -> list[Path]:
    """Every corpus file under `paths`: files as given, directories as their sorted contents.

    The suffix says what a file is, in capitals too. What else a directory holds is passed over,
    and one line on stderr says what that was.

    Args:
        paths: Files and directories.

    Returns:
        The files.

    Raises:
        CorpusError: A path does not exist, cannot be read, is of an unknown kind, is a directory
            without texts, or needs a library that is not installed.
    """
    files: list[Path] = []
    passed_over: Counter[str] = Counter()
    for path in map(Path, paths):
        if path.is_dir():
            found = _corpus_files_in(path, passed_over)
            if not found:
                raise CorpusError(
                    f"{path} holds no corpus files; expected {', '.join(_SUFFIXES)}"
                    + (f", found {_listed(passed_over)}" if passed_over else "")
                )
            files.extend(found)
        elif not path.exists():
            raise CorpusError(f"{path} does not exist")
        elif not _is_corpus_file(path):
            raise CorpusError(f"{path} is of an unknown kind; expected {', '.join(_SUFFIXES)}")
        else:
            check_regular(path, CorpusError)
            files.append(path)
    if passed_over:
        print(f"passed over: {_listed(passed_over)}", file=sys.stderr)
    _check_libraries(files)
    return files


def kind_of(file: Path) -> str:
    """`.txt`, `.jsonl` or `.parquet`, whether compressed or not.

    Args:
        file: A corpus file.

    Returns:
        The suffix without that of the compression, in small letters.
    """
    name = file.name.lower().removesuffix(compression_of(file))
    return name[name.rindex(".") :]


def compression_of(file: Path) -> str:
    """`.gz`, `.zst`, or nothing.

    Args:
        file: Any file.

    Returns:
        The suffix, in small letters.
    """
    suffix = file.suffix.lower()
    return suffix if suffix in _COMPRESSIONS else ""


def _is_corpus_file(path: Path) -> bool:
    return path.name.lower().endswith(_SUFFIXES)


def _corpus_files_in(directory: Path, passed_over: Counter[str]) -> list[Path]:
    """The corpus files of a directory and those below it; others are counted by reason."""
    found = []
    for path in _entries_below(directory):
        if path.name.startswith("._"):
            passed_over["._* (macOS's notes on files)"] += 1
        elif path.is_dir():
            passed_over["links to directories (name their targets)"] += 1
        elif not _is_corpus_file(path):
            passed_over[f"*{path.suffix.lower()}" if path.suffix else "without suffix"] += 1
        elif not path.exists():
            raise CorpusError(f"{path} is a link to a file that does not exist")
        else:
            check_regular(path, CorpusError)
            found.append(path)
    # The order of names, which a file system that takes capitals for small letters has not.
    return sorted(found, key=lambda file: file.parts)


def _entries_below(directory: Path) -> Iterator[Path]:
    """Everything below a directory but true directories. Links to directories are not followed."""

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


def _check_libraries(files: Iterable[Path]) -> None:
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
