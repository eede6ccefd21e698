"""Parts of corpus files. A part says where whole documents are, and any process can read them.

What is wrong with a document comes out as a value in its place, because whoever reads the part
decides whether it ends the work or is passed over.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gpt_neox_japanese.corpus.corpus_files import compression_of, kind_of
from gpt_neox_japanese.corpus.decompression import decompressed
from gpt_neox_japanese.corpus.documents import (
    Document,
    Layout,
    document_of_json,
    document_of_line,
    name_of,
)
from gpt_neox_japanese.errors import CorpusError
from gpt_neox_japanese.files.remote import AnyPath, RemotePath

__all__ = ["Broken", "Lines", "Part", "WholeText", "read_lines"]

_BYTES_OF_LINES = 2**21

MAX_DOCUMENT_BYTES = 2**26
"""The longest line, and the longest text that is a document: 64 MiB, 22 million kana.

Twelve gigabytes of one letter are 400 KB as a .zst; whoever unpacks them would hold them all.
"""


class Part(Protocol):
    """Some whole documents of one file."""

    @property
    def size(self) -> int:
        """How many bytes of the file they take there."""
        ...

    def documents(self, layout: Layout) -> Iterator[Document | CorpusError]:
        """The documents in order, with an error in the place of each one that is broken.

        Args:
            layout: Which fields or columns hold the text and the name.

        Yields:
            Each document, or a `CorpusError` that names file and line; none is raised.
        """
        ...


@dataclass(frozen=True)
class WholeText:
    """A text file that is one document."""

    file: AnyPath
    size: int

    def documents(self, layout: Layout) -> Iterator[Document | CorpusError]:
        """The file's text.

        Args:
            layout: Not used.

        Yields:
            One document, or one error.
        """
        try:
            data = bytearray()
            for chunk, _ in decompressed(self.file):
                data += chunk
                if len(data) > MAX_DOCUMENT_BYTES:
                    raise CorpusError(
                        f"{self.file} is one document of more than {MAX_DOCUMENT_BYTES:,} bytes;"
                        " split it, or read its lines as documents with --split-lines"
                    )
            yield Document(name_of(self.file), data.decode("utf-8-sig"), self.file, 1)
        except CorpusError as error:
            yield error
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            yield CorpusError(f"{self.file}, line {line}: not UTF-8 ({error.reason})")


@dataclass(frozen=True)
class Lines:
    """Consecutive lines of a file, each a document unless it is blank.

    Attributes:
        file: The file.
        size: Bytes that the lines take in the file.
        first: The first line's number, from 1.
        offset: Where the lines begin in the file.
        data: The lines themselves where the file is compressed, and has no such places, or is
            elsewhere, and would be fetched twice.
    """

    file: AnyPath
    size: int
    first: int
    offset: int
    data: bytes | None

    def documents(self, layout: Layout) -> Iterator[Document | CorpusError]:
        """The lines that are not blank.

        Args:
            layout: Which fields or columns hold the text and the name.

        Yields:
            A document for each line, or an error in its place.
        """
        is_text = kind_of(self.file) == ".txt"
        try:
            lines = self._read().split(b"\n")
        except OSError as error:
            yield CorpusError(f"{self.file} cannot be read: {error}")
            return
        for number, line in enumerate(lines, start=self.first):
            content = line.removeprefix(BOM_UTF8) if number == 1 else line
            if not content or content.isspace():
                continue
            try:
                if is_text:
                    yield document_of_line(line, self.file, number)
                else:
                    yield document_of_json(line, self.file, number, layout)
            except CorpusError as error:
                yield error

    def _read(self) -> bytes:
        if self.data is not None:
            return self.data
        with self.file.open("rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.size)


@dataclass(frozen=True)
class Broken:
    """What cannot be read: the rest of a file, or a line that is too long."""

    error: CorpusError
    size: int = 0

    def documents(self, layout: Layout) -> Iterator[Document | CorpusError]:
        """The error.

        Args:
            layout: Not used.

        Yields:
            One error.
        """
        yield self.error


def read_lines(file: AnyPath) -> Iterator[Part]:
    """Cut a file of lines into parts of some megabytes, or of one line where that is longer.

    Args:
        file: A file of lines, compressed or not.

    Yields:
        Its parts, in order.
    """
    is_packed = bool(compression_of(file))
    keeps_lines = is_packed or isinstance(file, RemotePath)
    first, offset = 1, 0
    try:
        for data, length, end in _whole_lines(decompressed(file)):
            size = end - offset if is_packed else length
            if data is None:
                yield Broken(
                    CorpusError(
                        f"{file}, line {first}: longer than {MAX_DOCUMENT_BYTES:,} bytes; split"
                        " this document"
                    ),
                    size,
                )
                first += 1
            else:
                yield Lines(file, size, first, offset, data if keeps_lines else None)
                first += data.count(b"\n")
            offset += size
    except CorpusError as error:
        yield Broken(error)


class _Cut(NamedTuple):
    """Whole lines, or one that is too long to be kept.

    Attributes:
        data: The lines; None for one that is too long.
        length: How many bytes they have.
        end: How far in the file itself they end, about.
    """

    data: bytes | None
    length: int
    end: int


def _whole_lines(chunks: Iterator[tuple[bytes, int]]) -> Iterator[_Cut]:
    """Join and cut chunks so that they end with a line, holding no line that is too long."""
    pending: list[bytes] = []  # whole lines, and the beginning of one more
    line = 0  # bytes of that beginning
    too_long = False  # it is not kept
    end = 0
    try:
        for chunk, end in chunks:
            first = chunk.find(b"\n") + 1
            if not too_long and line + (first or len(chunk)) > MAX_DOCUMENT_BYTES:
                too_long, whole = True, b"".join(pending)
                if cut := len(whole) - line:
                    yield _Cut(whole[:cut], cut, end)
                del pending[:], whole
            if too_long:
                line += first or len(chunk)
                if not first:
                    continue
                yield _Cut(None, line, end)
                too_long, line, chunk = False, 0, chunk[first:]
            pending.append(chunk)
            # Looking at the newest chunk alone keeps a long line linear.
            cut = chunk.rfind(b"\n") + 1
            line = len(chunk) - cut if cut else line + len(chunk)
            if cut and sum(map(len, pending)) >= _BYTES_OF_LINES:
                data = b"".join(pending[:-1]) + chunk[:cut]
                yield _Cut(data, len(data), end)
                pending = [chunk[cut:]]
    except CorpusError:
        rest = b"".join(pending)
        rest = rest[: rest.rfind(b"\n") + 1]  # the last line is not whole
        yield _Cut(rest, len(rest), end)
        raise
    rest = b"".join(pending)
    yield _Cut(None, line, end) if too_long else _Cut(rest, len(rest), end)
