"""Corpus → token shards, on all cores, with the same result whatever their number."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from gpt_neox_japanese.checks import check_number
from gpt_neox_japanese.corpus import is_held_out, name_of
from gpt_neox_japanese.errors import ArgumentError, DataError
from gpt_neox_japanese.files.model_directory import TOKENIZER_FILES, find_tokenizer
from gpt_neox_japanese.files.remote import AnyPath, as_path
from gpt_neox_japanese.tokenization.arrays import MANIFEST, token_dtype
from gpt_neox_japanese.tokenization.encode_corpus import (
    CorpusSource,
    Encoded,
    Packed,
    ReadingKwargs,
    corpus_fingerprint,
    encode_corpus,
)
from gpt_neox_japanese.tokenization.resumable_output import ResumableOutput
from gpt_neox_japanese.tokenizer.codec import END_OF_TEXT, Codec
from gpt_neox_japanese.tokenizer.vocabulary import EMOJI_FILE, VOCAB_FILE
from gpt_neox_japanese.training.data import shard_writer
from gpt_neox_japanese.training.data.parts import files_of_part, save_part
from gpt_neox_japanese.training.data.shard_writer import PART
from gpt_neox_japanese.training.data.shards import FORMAT_VERSION, HELD_OUT_TEXT, Manifest

__all__ = ["prepare"]


def prepare(
    corpus: Iterable[str | AnyPath],
    tokenizer: str | Path,
    output: str | AnyPath,
    *,
    held_out: float = 0.01,
    resume: bool = False,
    part: tuple[int, int] | None = None,
    **reading: Unpack[ReadingKwargs],
) -> Manifest:
    """Tokenize a corpus into `output` (see `shards`), which appears only when it is complete.

    Args:
        corpus: Files, directories and URLs, as `corpus_files` takes them.
        tokenizer: A directory with `vocab.txt` and `emoji.json`, a Hub id, or "default" for the
            vocabulary of the model in this package.
        output: The directory to make, a path or a URL; it must not exist, or be empty. At a URL, it
            is complete when `manifest.json` is there, or `part.json`.
        held_out: The fraction of the documents kept out of training.
        resume: Continue a run that was interrupted, if there is one; see `resumable_output`.
        part: Which part of how many, (1, 4) for the first of four: only its files are read, and
            `merge` makes the whole of all parts. None for the whole.
        **reading: `layout`, `on_error` and `workers`; see `ReadingKwargs`.

    Returns:
        What `manifest.json` holds, or `part.json` of the part.

    Raises:
        OutputError: `output` is not empty or cannot be written.
        DataError: Nothing is left to train on, the vocabulary has no end-of-text id, or there is
            an interrupted run that this one cannot continue.
        CorpusError: The corpus cannot be read.
        RemoteError: Another machine does not answer.
        CheckpointError: There is no such tokenizer.
        ArgumentError: There is no such part, or `held_out`, `on_error` or `workers` is something
            else than above.
    """
    if part is not None and not 1 <= part[0] <= part[1]:
        raise ArgumentError(f"part {part[0]} of {part[1]} does not exist; parts are 1 to {part[1]}")
    fraction = "a number from 0 to below 1"
    held_out = check_number("held_out", held_out, ArgumentError, lambda x: 0 <= x < 1, fraction)
    source = CorpusSource.find(corpus, **reading)
    directory = find_tokenizer(tokenizer)
    codec = Codec.load(directory)
    eos_token_id = codec.token_to_id(END_OF_TEXT)
    if eos_token_id is None:
        raise DataError(f"the vocabulary of {tokenizer} has no {END_OF_TEXT} to end documents with")
    dtype = token_dtype(len(codec))
    settings = {**corpus_fingerprint(source, codec), "held_out": held_out}
    last, run = MANIFEST, settings
    if part is not None:
        source = replace(source, files=files_of_part(source.files, *part))
        last, run = PART, {**settings, "part": part}
    place = as_path(output)
    with ResumableOutput(place, run, resume=resume, names=shard_writer.NAMES, last=last) as files:
        pack = _Pack(held_out, eos_token_id, dtype)
        encode_corpus(source, codec, pack, partial(_put, files), files)
        if part is None:
            shard_writer.discard_if_untrainable(files)
        manifest = Manifest(
            version=FORMAT_VERSION,
            dtype=dtype.name,
            vocabulary_fingerprint=codec.fingerprint,
            vocabulary_size=len(codec),
            eos_token_id=eos_token_id,
            held_out_fraction=held_out,
            sources=tuple(name_of(file) for file in source.files),
            train=shard_writer.train_split(files, dtype),
            held_out=shard_writer.held_out_split(files, dtype),
            skipped=files.counts["skipped"],
        )
        _copy_tokenizer(codec, directory, files.directory)
        if part is None:
            manifest.save(files.directory)
        else:
            save_part(files, *part, settings, manifest)
        files.publish()
    return manifest


@dataclass(frozen=True)
class _Pack:
    """Packs a block's training and held-out documents."""

    held_out: float
    eos_token_id: int
    dtype: np.dtype[Any]

    def __call__(self, encoded: Encoded) -> Packed:
        documents, rows = encoded
        ids = rows.ids.astype(self.dtype)
        end = self.dtype.type(self.eos_token_id).tobytes()
        parts: dict[str, list[bytes]] = {"train": [], "held-out": [], HELD_OUT_TEXT: []}
        counts: Counter[str] = Counter()
        for document, bounds in zip(documents, pairwise(rows.bounds.tolist()), strict=True):
            split = "train"
            if is_held_out(document.id, self.held_out):
                split = "held-out"
                text = json.dumps({"id": document.id, "text": document.text}, ensure_ascii=False)
                parts[HELD_OUT_TEXT].append(text.encode() + b"\n")
            parts[split] += (ids[slice(*bounds)].tobytes(), end)
            counts[f"{split}.documents"] += 1
            counts[f"{split}.characters"] += len(document.text)
        return Packed({name: b"".join(pieces) for name, pieces in parts.items()}, counts)


def _put(files: ResumableOutput, packed: Packed) -> None:
    shard_writer.append(
        files,
        train=packed.parts["train"],
        held_out=packed.parts["held-out"],
        held_out_text=packed.parts[HELD_OUT_TEXT],
    )


def _copy_tokenizer(codec: Codec, source: Path, directory: Path) -> None:
    codec.save(directory)
    # The originals may say more than the codec knows, to transformers for one.
    vocabulary = {VOCAB_FILE, EMOJI_FILE}
    for name in TOKENIZER_FILES:
        if name not in vocabulary and (source / name).is_file():
            shutil.copyfile(source / name, directory / name)
