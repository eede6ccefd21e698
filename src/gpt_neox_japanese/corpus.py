"""Reading text corpora: plain text and JSON lines, compressed or not, one document at a time.

    novel.txt            a file is a document, its id the file's name
    works.jsonl          a line is a document: {"text": "…", "id": "…"}, the id may be missing
    works.jsonl.gz/.zst  the same, compressed

Only one document is in memory at a time, whatever the size of the corpus.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from gpt_neox_japanese.errors import CorpusError

__all__ = ["Document", "corpus_files", "is_held_out", "read_documents"]

_COMPRESSIONS = ("", ".gz", ".zst")
_SUFFIXES = tuple(kind + packed for kind in (".txt", ".jsonl") for packed in _COMPRESSIONS)


@dataclass(frozen=True)
class Document:
    """One text of a corpus.

    Attributes:
        id: the `id` of the JSON line; without one, `file:line`; for a text file its name.
        text: the text, free of lone surrogates.
        file: the file it came from.
        line: the line of that file it began at, counted from 1.
    """

    id: str
    text: str
    file: Path
    line: int


def corpus_files(paths: Iterable[str | Path]) -> list[Path]:
    """Every corpus file under `paths`: files as given, directories as their sorted contents.

    Inside a directory, files of other kinds are passed over.

    Raises:
        CorpusError: a path does not exist, is of an unknown kind, or is a directory without texts.
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
    return files


def read_documents(paths: Iterable[str | Path]) -> Iterator[Document]:
    """The documents of `paths` (see `corpus_files`), in order.

    Raises:
        CorpusError: a file or a line cannot be read; the message names both.
    """
    for file in corpus_files(paths):
        yield from _read_lines(file) if ".jsonl" in file.suffixes else _read_text(file)


def is_held_out(document_id: str, fraction: float) -> bool:
    """Whether a document belongs to the held-out part, by its id alone.

    The decision is the same on every machine and for every order of the corpus, and a document
    held out at one fraction stays held out at every larger one.

    Args:
        document_id: the document's id.
        fraction: the wanted size of the held-out part, from 0 to 1.
    """
    digest = hashlib.sha256(document_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def _read_text(file: Path) -> Iterator[Document]:
    with _opened(file) as stream:
        try:
            text = stream.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise CorpusError(f"{file}, line {line}: not UTF-8 ({error.reason})") from None
    yield Document(file.name, text, file, 1)


def _read_lines(file: Path) -> Iterator[Document]:
    with _opened(file) as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield _document_of_line(line, file, number)


def _document_of_line(line: bytes, file: Path, number: int) -> Document:
    place = f"{file}, line {number}"
    try:
        fields = json.loads(line)
    except UnicodeDecodeError as error:
        raise CorpusError(f"{place}: not UTF-8 ({error.reason})") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise CorpusError(f"{place}: not JSON ({error})") from None
    text = fields.get("text") if isinstance(fields, dict) else None
    if not isinstance(text, str):
        raise CorpusError(f'{place}: expected an object with a string "text"')
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CorpusError(
            f"{place}: lone surrogate U+{ord(text[error.start]):04X} at character {error.start}"
        ) from None
    document_id = fields.get("id")
    return Document(
        f"{file.name}:{number}" if document_id is None else str(document_id), text, file, number
    )


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """The file's uncompressed bytes; whatever breaks while they are read is a CorpusError."""
    try:
        with _open(file) as stream:
            yield stream
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"{file} cannot be read: {error}") from error


def _open(file: Path) -> IO[bytes]:
    if file.suffix == ".gz":
        return cast("IO[bytes]", gzip.GzipFile(file))
    if file.suffix == ".zst":
        return cast("IO[bytes]", io.BufferedReader(_ZstReader(file), 2**18))
    return file.open("rb")


class _ZstReader(io.RawIOBase):
    """The uncompressed bytes of a .zst file.

    Unlike `zstandard.open` it notices when the file ends in the middle of a frame.
    """

    def __init__(self, file: Path) -> None:
        try:
            import zstandard
        except ImportError:
            raise CorpusError(
                f"reading {file} needs zstandard: pip install 'gpt-neox-japanese[train]'"
            ) from None
        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._error = zstandard.ZstdError
        self._file = file.open("rb")
        self._frame = self._new_frame()
        self._packed = self._unpacked = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._unpacked:
            if not self._unpack():
                return 0
        count = min(len(buffer), len(self._unpacked))
        buffer[:count] = self._unpacked[:count]
        self._unpacked = self._unpacked[count:]
        return count

    def _unpack(self) -> bool:
        packed = self._packed or self._file.read(2**14)
        if not packed:
            if not self._frame.eof:
                raise EOFError("it is truncated")
            return False
        if self._frame.eof:
            self._frame = self._new_frame()
        try:
            self._unpacked = self._frame.decompress(packed)
        except self._error as error:
            raise OSError(str(error)) from error
        self._packed = self._frame.unused_data
        return True

    def close(self) -> None:
        self._file.close()
        super().close()
