"""Corpus → ids: what `neox-ja prepare` and `neox-ja tokenize` have in common.

The corpus is cut into blocks. A worker reads, parses and encodes a whole block and packs the result
as it will stand on disk; this process only appends it, in the blocks' order. So the result is the
same whatever the number of workers.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple, TypedDict

from tqdm import tqdm

from gpt_neox_japanese.checks import check_integer, short_repr
from gpt_neox_japanese.corpus import (
    Block,
    Document,
    Layout,
    corpus_files,
    map_blocks,
    read_blocks,
)
from gpt_neox_japanese.errors import ArgumentError, CorpusError
from gpt_neox_japanese.files.remote import AnyPath, file_size
from gpt_neox_japanese.machine import usable_cores
from gpt_neox_japanese.tokenization.resumable_output import ResumableOutput
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.tokenizer.results import Ragged

__all__ = [
    "CorpusSource",
    "EncodeAndPack",
    "Encoded",
    "OnError",
    "Pack",
    "PackDocuments",
    "Packed",
    "ReadingKwargs",
    "corpus_fingerprint",
    "encode_corpus",
    "num_workers",
]

# A process takes a second to start; that is well spent from about this much source on.
_BYTES_WORTH_A_WORKER = 2**24

OnError = Literal["stop", "skip"]


class Encoded(NamedTuple):
    """Some documents and their ids.

    Attributes:
        documents: The documents.
        rows: `rows[i]` are the ids of document i.
    """

    documents: Sequence[Document]
    rows: Ragged


class Packed(NamedTuple):
    """What a block contributes to the output.

    Attributes:
        parts: Name → bytes to append.
        counts: Name → number to add.
    """

    parts: Mapping[str, bytes]
    counts: Mapping[str, int]


Pack = Callable[[Encoded], Packed]
"""Turns a block's documents into bytes of the output. Runs in the workers, so it can be pickled."""


PackDocuments = Callable[[Sequence[Document]], tuple[Packed, list[CorpusError]]]
"""Turns a block's documents into bytes of the output, and names those that cannot be; pickled too.
"""


class ReadingKwargs(TypedDict, total=False):
    """How a corpus is read, and on how many cores.

    Attributes:
        layout: Where in the files the documents are; `Layout()` if None or not given.
        on_error: What a broken document does: "stop", the default, raises a CorpusError, "skip"
            passes it over with a line on stderr.
        workers: Number of processes at most; as many as there are CPUs if None or not given.
    """

    layout: Layout | None
    on_error: OnError
    workers: int | None


@dataclass(frozen=True)
class CorpusSource:
    """A corpus and how it is to be read.

    Attributes:
        files: The corpus files.
        layout: See `ReadingKwargs`.
        on_error: See `ReadingKwargs`.
        workers: See `ReadingKwargs`.

    Raises:
        ArgumentError: `on_error` or `workers` is something else.
    """

    files: Sequence[AnyPath]
    layout: Layout
    on_error: OnError
    workers: int | None

    def __post_init__(self) -> None:
        if self.on_error not in ("stop", "skip"):
            shown = short_repr(self.on_error)
            raise ArgumentError(f"on_error is {shown}; it must be 'stop' or 'skip'")
        if self.workers is not None:
            check_integer("workers", self.workers, ArgumentError, minimum=1)

    @classmethod
    def find(
        cls,
        corpus: Iterable[str | AnyPath],
        *,
        layout: Layout | None = None,
        on_error: OnError = "stop",
        workers: int | None = None,
    ) -> CorpusSource:
        """Find the files of a corpus.

        Args:
            corpus: Files, directories and URLs, as `corpus_files` takes them.
            layout: See `ReadingKwargs`.
            on_error: See `ReadingKwargs`.
            workers: See `ReadingKwargs`.

        Returns:
            The corpus.

        Raises:
            CorpusError: A file is not there, or of no kind that can be read.
            ArgumentError: `on_error` or `workers` cannot be used.
            RemoteError: Another machine does not answer.
        """
        return cls(corpus_files(corpus), layout or Layout(), on_error, workers)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(file_size, self.files))


def encode_corpus(
    source: CorpusSource,
    pack: PackDocuments,
    put: Callable[[Packed], None],
    output: ResumableOutput,
) -> None:
    """Encode the blocks of `source` that `output` does not have yet.

    `output.counts["skipped"]` is then the number of broken documents that were passed over.

    Args:
        source: The corpus.
        pack: Makes bytes of a block's documents; `EncodeAndPack`, if they are texts.
        put: Appends them to `output`.
        output: Where the work stands.

    Raises:
        CorpusError: Something is broken and `source.on_error` is `stop`.
        RemoteError: Another machine does not answer.
    """
    blocks = read_blocks(source.files, source.layout)
    done = sum(block.size for block in islice(blocks, output.blocks))
    work = _Work(pack, source.on_error)
    with tqdm(
        total=source.size, initial=done, desc="encode", unit="B", unit_scale=True
    ) as progress:
        for block, (packed, problems) in map_blocks(work, blocks, num_workers(source)):
            for problem in problems:
                progress.write(f"skipped: {problem}", file=sys.stderr)
            put(packed)
            output.end_block({**packed.counts, "skipped": len(problems)})
            progress.update(block.size)


def corpus_fingerprint(source: CorpusSource, codec: Codec) -> dict[str, Any]:
    """What the ids of a corpus depend on: two runs with the same fingerprint give the same ids.

    Args:
        source: The corpus; its files count with their names and sizes, not with their contents.
        codec: The tokenizer.

    Returns:
        Name → JSON value; the names appear in messages.
    """
    files = json.dumps([[file.name, file_size(file)] for file in source.files])
    return {
        "corpus": hashlib.sha256(files.encode()).hexdigest(),
        "layout": asdict(source.layout),
        "vocabulary": [codec.fingerprint, codec.legacy, codec.clean, codec.unknown_id],
    }


def num_workers(source: CorpusSource) -> int:
    """Choose how many processes encode a corpus.

    Args:
        source: The corpus.

    Returns:
        `source.workers` at most, and fewer where there is not enough text for them.
    """
    limit = source.workers or usable_cores()
    return max(1, min(limit, source.size // _BYTES_WORTH_A_WORKER))


@dataclass(frozen=True)
class EncodeAndPack:
    """Encodes a block's texts and packs their ids.

    Attributes:
        codec: Pickled for the workers.
        pack: Makes bytes of the ids.
    """

    codec: Codec
    pack: Pack

    def __call__(self, documents: Sequence[Document]) -> tuple[Packed, list[CorpusError]]:
        """See `PackDocuments`; nothing of a text can be wrong any more."""
        # The blocks are what is shared out, so one thread is enough here.
        texts = [document.text for document in documents]
        rows = self.codec.encode_batch_to_numpy(texts, num_threads=1)
        return self.pack(Encoded(documents, rows)), []


@dataclass(frozen=True)
class _Work:
    """Reads and packs a block."""

    pack: PackDocuments
    on_error: str

    def __call__(self, block: Block) -> tuple[Packed, list[str]]:
        documents: list[Document] = []
        problems: list[CorpusError] = []
        for document in block.documents():
            if isinstance(document, CorpusError):
                problems.append(self._passed_over(document))
            else:
                documents.append(document)
        packed, found = self.pack(documents)
        problems += map(self._passed_over, found)
        return packed, list(map(str, problems))

    def _passed_over(self, problem: CorpusError) -> CorpusError:
        if self.on_error == "stop":
            raise problem
        return problem
