"""A tokenized corpus on disk, for whoever reads ids with numpy or with anything else.

A directory holds

ids.npy          uint16 or uint32 [tokens], the ids of all documents one after the other
bounds.npy       int64 [documents + 1]; document i is `ids[bounds[i]:bounds[i + 1]]`
documents.jsonl  a line a document: {"id": "…"}
manifest.json    counts, sources, and which vocabulary made the ids

and a file of JSON lines holds {"id": "…", "ids": […]}, a line a document.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from gpt_neox_japanese.corpus import name_of
from gpt_neox_japanese.files.model_directory import find_tokenizer
from gpt_neox_japanese.files.remote import AnyPath
from gpt_neox_japanese.tokenization.encode_corpus import (
    CorpusSource,
    EncodeAndPack,
    Encoded,
    Packed,
    ReadingKwargs,
    corpus_fingerprint,
    encode_corpus,
)
from gpt_neox_japanese.tokenization.resumable_output import ResumableOutput
from gpt_neox_japanese.tokenizer.codec import Codec

__all__ = ["MANIFEST", "Totals", "token_dtype", "tokenize_corpus"]

MANIFEST = "manifest.json"
IDS = "ids.npy"
BOUNDS = "bounds.npy"
DOCUMENTS = "documents.jsonl"

_BOUND = np.dtype("<i8")


@dataclass(frozen=True)
class Totals:
    """How much was tokenized.

    Attributes:
        documents: Number of documents.
        characters: Unicode characters of their texts.
        tokens: Number of ids.
        skipped: Broken documents that were passed over.
    """

    documents: int
    characters: int
    tokens: int
    skipped: int


def tokenize_corpus(
    corpus: Iterable[str | AnyPath],
    tokenizer: str | Path,
    output: Path,
    *,
    resume: bool = False,
    **reading: Unpack[ReadingKwargs],
) -> Totals:
    """Encode every document of a corpus into `output`, which appears only when it is complete.

    Args:
        corpus: Files, directories and URLs, as `corpus_files` takes them.
        tokenizer: A directory with `vocab.txt` and `emoji.json`, a Hub id, or "default" for the
            vocabulary of the model in this package.
        output: A name that ends in `.jsonl` becomes a file of JSON lines, any other a directory.
        resume: Continue a run that was interrupted, if there is one; see `resumable_output`.
        **reading: `layout`, `on_error` and `workers`; see `ReadingKwargs`.

    Returns:
        How much was tokenized.

    Raises:
        OutputError: `output` exists or cannot be written.
        DataError: There is an interrupted run that this one cannot continue.
        CorpusError: The corpus cannot be read.
        RemoteError: Another machine does not answer.
        CheckpointError: There is no such tokenizer.
        ArgumentError: `on_error` or `workers` is something else than above.
    """
    source = CorpusSource.find(corpus, **reading)
    codec = Codec.load(find_tokenizer(tokenizer))
    as_lines = output.suffix == ".jsonl"
    last = output.name if as_lines else MANIFEST
    settings = {**corpus_fingerprint(source, codec), "output": "lines" if as_lines else "arrays"}
    written = [output.name] if as_lines else [IDS, BOUNDS, DOCUMENTS, MANIFEST]
    names = re.compile("|".join(map(re.escape, written)))
    run = ResumableOutput(output, settings, resume=resume, names=names, last=last, is_file=as_lines)
    with run as files:
        if as_lines:
            files.append(output.name, b"")
            put = partial(_put_lines, files, output.name)
            encode_corpus(source, EncodeAndPack(codec, _pack_lines), put, files)
        else:
            _encode_arrays(source, codec, files)
        totals = Totals(**{field.name: files.counts[field.name] for field in fields(Totals)})
        if not as_lines:
            _save_manifest(files.directory, source, codec, totals)
        files.publish()
    return totals


def _pack_lines(encoded: Encoded) -> Packed:
    lines = (
        json.dumps({"id": document.id, "ids": ids.tolist()}, ensure_ascii=False) + "\n"
        for document, ids in zip(encoded.documents, encoded.rows, strict=True)
    )
    return Packed({"lines": "".join(lines).encode()}, _count(encoded))


def _put_lines(files: ResumableOutput, name: str, packed: Packed) -> None:
    files.append(name, packed.parts["lines"])


def _encode_arrays(source: CorpusSource, codec: Codec, files: ResumableOutput) -> None:
    dtype = token_dtype(len(codec))
    if not files.size(IDS):
        files.append(IDS, _npy_header(dtype, 0))
        files.append(BOUNDS, _npy_header(_BOUND, 0) + np.zeros(1, _BOUND).tobytes())
        files.append(DOCUMENTS, b"")
    pack = EncodeAndPack(codec, _PackArrays(dtype))
    encode_corpus(source, pack, partial(_put_arrays, files), files)
    files.rewrite_start(IDS, _npy_header(dtype, files.counts["tokens"]))
    files.rewrite_start(BOUNDS, _npy_header(_BOUND, files.counts["documents"] + 1))


@dataclass(frozen=True)
class _PackArrays:
    dtype: np.dtype[Any]

    def __call__(self, encoded: Encoded) -> Packed:
        lines = (
            json.dumps({"id": document.id}, ensure_ascii=False) + "\n"
            for document in encoded.documents
        )
        parts = {
            IDS: encoded.rows.ids.astype(self.dtype).tobytes(),
            "lengths": np.diff(encoded.rows.bounds).astype(_BOUND).tobytes(),
            DOCUMENTS: "".join(lines).encode(),
        }
        return Packed(parts, _count(encoded))


def _put_arrays(files: ResumableOutput, packed: Packed) -> None:
    # Where a document ends depends on all blocks before, which no worker knows.
    lengths = np.frombuffer(packed.parts["lengths"], _BOUND)
    bounds = files.counts["tokens"] + np.cumsum(lengths, dtype=_BOUND)
    files.append(IDS, packed.parts[IDS])
    files.append(BOUNDS, bounds.tobytes())
    files.append(DOCUMENTS, packed.parts[DOCUMENTS])


def _npy_header(dtype: np.dtype[Any], length: int) -> bytes:
    """The start of an .npy file; numpy gives it the same size whatever the length."""
    stream = io.BytesIO()
    header = {"descr": dtype.str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def _count(encoded: Encoded) -> dict[str, int]:
    return {
        "documents": len(encoded.documents),
        "characters": sum(len(document.text) for document in encoded.documents),
        "tokens": len(encoded.rows.ids),
    }


def _save_manifest(directory: Path, source: CorpusSource, codec: Codec, totals: Totals) -> None:
    manifest = {
        "vocabulary_fingerprint": codec.fingerprint,
        "sources": [name_of(file) for file in source.files],
        **asdict(totals),
    }
    text = json.dumps(manifest, ensure_ascii=False, indent=2)
    (directory / MANIFEST).write_text(text + "\n", encoding="utf-8", newline="\n")


def token_dtype(vocabulary_size: int) -> np.dtype[Any]:
    """Choose the type that ids are stored in.

    Args:
        vocabulary_size: Number of ids.

    Returns:
        The narrowest little-endian type that holds every id: uint16 or uint32.
    """
    return np.dtype("<u2" if vocabulary_size <= 2**16 else "<u4")
