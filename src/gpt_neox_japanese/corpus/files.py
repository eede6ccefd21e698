"""Which files a corpus has, and the bytes inside them, unpacked."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from gpt_neox_japanese.errors import CorpusError

__all__ = ["corpus_files", "kind_of", "unpacked"]

_COMPRESSIONS = ("", ".gz", ".zst")
_SUFFIXES = (
    *(kind + packed for kind in (".txt", ".jsonl") for packed in _COMPRESSIONS),
    ".parquet",
)

_PLAIN_BYTES = 2**20
_PACKED_BYTES = 2**14  # a thousandfold unpacked they still fit into memory


def corpus_files(paths: Iterable[str | Path]) -> list[Path]:
    """Every corpus file under `paths`: files as given, directories as their sorted contents.

    Inside a directory, files of other kinds are passed over.

    Raises:
        CorpusError: a path does not exist, is of an unknown kind, is a directory without texts, or
            needs a library that is not installed.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(f for f in path.rglob("*") if f.is_file() and f.name.endswith(_SUFFIXES))
            if not found:
                raise CorpusError(f"{path} holds no corpus files; expected {', '.join(_SUFFIXES)}")
            files.extend(found)
        elif not path.exists():
            raise CorpusError(f"{path} does not exist")
        elif not path.name.endswith(_SUFFIXES):
            raise CorpusError(f"{path} is of an unknown kind; expected {', '.join(_SUFFIXES)}")
        else:
            files.append(path)
    _check_libraries(files)
    return files


def kind_of(file: Path) -> str:
    """`.txt`, `.jsonl` or `.parquet`, whether compressed or not."""
    name = file.name.removesuffix(".gz").removesuffix(".zst")
    return name[name.rindex(".") :]


def unpacked(file: Path) -> Iterator[tuple[bytes, int]]:
    """Chunks of a file's uncompressed bytes, each with how far in the file itself it ends.

    Raises:
        CorpusError: the file cannot be read, is no archive of its kind, or ends too early.
    """
    try:
        with file.open("rb") as stream:
            if file.suffix == ".gz":
                yield from _unpacked_gz(stream)
            elif file.suffix == ".zst":
                yield from _unpacked_zst(stream)
            else:
                while chunk := stream.read(_PLAIN_BYTES):
                    yield chunk, stream.tell()
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"{file} cannot be read: {error}") from error


def _unpacked_gz(stream: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    yield from _unpacked_frames(stream, lambda: zlib.decompressobj(wbits=31))


def _unpacked_zst(stream: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    import zstandard

    # zstandard's own readers do not notice a file that ends in the middle of a frame.
    try:
        yield from _unpacked_frames(stream, zstandard.ZstdDecompressor().decompressobj)
    except zstandard.ZstdError as error:
        raise OSError(str(error)) from error


def _unpacked_frames(stream: IO[bytes], new_frame: Any) -> Iterator[tuple[bytes, int]]:
    """Unpack archives that stand one after the other, as both formats allow."""
    frame = None
    rest = b""
    while packed := rest or stream.read(_PACKED_BYTES):
        if frame is None or frame.eof:
            frame = new_frame()
        chunk = frame.decompress(packed)
        rest = frame.unused_data
        yield chunk, stream.tell() - len(rest)
    if frame is not None and not frame.eof:
        raise EOFError("it is truncated")


def _check_libraries(files: Iterable[Path]) -> None:
    """Import what reading the files needs, so that nothing is missing hours later."""
    suffixes = {file.suffix for file in files}
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
