"""Cutting a corpus into blocks of whole documents, always the same ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gpt_neox_japanese.corpus.corpus_files import corpus_files, kind_of
from gpt_neox_japanese.corpus.documents import Document, Layout
from gpt_neox_japanese.corpus.parquet import read_row_groups
from gpt_neox_japanese.corpus.parts import Broken, Lines, Part, WholeText, read_lines
from gpt_neox_japanese.errors import CorpusError
from gpt_neox_japanese.files.remote import AnyPath, file_size

__all__ = ["Block", "read_blocks", "read_documents"]

_BYTES_PER_BLOCK = 2**21


@dataclass(frozen=True)
class Block:
    """Some consecutive documents of a corpus, perhaps of several files. It can be pickled.

    Attributes:
        parts: Where they are.
        layout: How they are read.
    """

    parts: tuple[Part, ...]
    layout: Layout

    @property
    def size(self) -> int:
        """How many bytes of the corpus files the block takes, compressed as they are."""
        return sum(part.size for part in self.parts)

    def documents(self) -> Iterator[Document | CorpusError]:
        """The documents in order, with an error in the place of each one that is broken.

        Yields:
            Documents, and errors in their places.
        """
        for part in self.parts:
            yield from part.documents(self.layout)


def read_blocks(files: Iterable[AnyPath], layout: Layout) -> Iterator[Block]:
    """Cut corpus files into blocks of some megabytes, in order.

    A document larger than that is a block of its own, and so is a Parquet row group. Of compressed
    files and those on other machines the blocks hold the text itself, of others only where it is.

    Args:
        files: Files of a corpus, in order.
        layout: Where in the files the documents are.

    Yields:
        Blocks; the same files always give the same ones.
    """
    parts: list[Part] = []
    size = 0
    for file in files:
        for part in _parts(file, layout):
            parts.append(part)
            size += _bytes_to_read(part)
            if size >= _BYTES_PER_BLOCK:
                yield Block(tuple(parts), layout)
                parts, size = [], 0
    if parts:
        yield Block(tuple(parts), layout)


def read_documents(
    paths: Iterable[str | AnyPath], layout: Layout | None = None
) -> Iterator[Document]:
    """The documents of `paths` (see `corpus_files`), in order.

    Args:
        paths: Files and directories, or URLs of them.
        layout: Where in the files the documents are; the usual one if None.

    Yields:
        Documents.

    Raises:
        CorpusError: A file or a line cannot be read; the message names both.
        RemoteError: Another machine does not answer.
    """
    for block in read_blocks(corpus_files(paths), layout or Layout()):
        for document in block.documents():
            if isinstance(document, CorpusError):
                raise document
            yield document


def _bytes_to_read(part: Part) -> int:
    # How far in an archive something lies depends on how its library reads ahead, and blocks must
    # not: a run that continues counts them.
    if isinstance(part, Broken):
        return 0
    return len(part.data) if isinstance(part, Lines) and part.data is not None else part.size


def _parts(file: AnyPath, layout: Layout) -> Iterator[Part]:
    kind = kind_of(file)
    if layout.conversations and kind != ".jsonl":
        yield Broken(CorpusError(f"{file}: conversations are the lines of .jsonl files"))
    elif kind == ".parquet":
        yield from read_row_groups(file)
    elif kind == ".jsonl" or layout.split_lines:
        yield from read_lines(file)
    else:
        yield WholeText(file, file_size(file))
