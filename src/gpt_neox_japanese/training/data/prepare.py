"""Corpus → token shards, on all cores, with the same result whatever their number."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from gpt_neox_japanese.checks import check_number
from gpt_neox_japanese.corpus import (
    Document,
    HeldOut,
    choose_held_out,
    corpus_files,
    name_of,
    without,
)
from gpt_neox_japanese.errors import ArgumentError, DataError
from gpt_neox_japanese.files.model_directory import TOKENIZER_FILES, find_tokenizer
from gpt_neox_japanese.files.remote import AnyPath, as_path, file_size
from gpt_neox_japanese.tokenization.arrays import MANIFEST, token_dtype
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
from gpt_neox_japanese.tokenizer.codec import END_OF_TEXT, Codec
from gpt_neox_japanese.tokenizer.vocabulary import EMOJI_FILE, VOCAB_FILE
from gpt_neox_japanese.training.data import shard_writer
from gpt_neox_japanese.training.data.parts import files_of_part, save_part
from gpt_neox_japanese.training.data.shard_writer import PART
from gpt_neox_japanese.training.data.shards import FORMAT_VERSION, HELD_OUT_TEXT, Manifest

__all__ = ["copy_tokenizer", "prepare"]

_HELD_OUT = 0.01


def prepare(
    corpus: Iterable[str | AnyPath],
    tokenizer: str | Path,
    output: str | AnyPath,
    *,
    held_out: float | None = None,
    held_out_files: Iterable[str | AnyPath] = (),
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
        held_out: About the fraction of the text kept out of training, see `choose_held_out`; 0.01
            if None, or 0 where there are `held_out_files`.
        held_out_files: Files, directories and URLs with text that is held out as well; none of
            them is trained on, also if `corpus` names them.
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
    own = corpus_files(held_out_files) if (held_out_files := list(held_out_files)) else []
    held_out = (0.0 if own else _HELD_OUT) if held_out is None else held_out
    fraction = "a number from 0 to below 1"
    held_out = check_number("held_out", held_out, ArgumentError, lambda x: 0 <= x < 1, fraction)
    source = CorpusSource.find(corpus, **reading)
    source = replace(source, files=without(source.files, own))
    directory = find_tokenizer(tokenizer)
    codec = Codec.load(directory)
    eos_token_id = codec.token_to_id(END_OF_TEXT)
    if eos_token_id is None:
        raise DataError(f"the vocabulary of {tokenizer} has no {END_OF_TEXT} to end documents with")
    dtype = token_dtype(len(codec))
    choice = choose_held_out(source.files, source.layout, held_out)
    kept = [[file.name, file_size(file)] for file in own]
    settings = {
        **corpus_fingerprint(source, codec),
        "held_out": {"fraction": held_out, **asdict(choice), "files": kept},
    }
    last, run = MANIFEST, settings
    if part is not None:
        source = replace(source, files=files_of_part(source.files, *part))
        own = own if part[0] == part[1] else []  # they come after all that is trained on
        last, run = PART, {**settings, "part": part}
    everything = replace(source, files=[*source.files, *own])
    place = as_path(output)
    with ResumableOutput(place, run, resume=resume, names=shard_writer.NAMES, last=last) as files:
        pack = _Pack(choice, frozenset(own), codec, eos_token_id, dtype)
        encode_corpus(everything, EncodeAndPack(codec, pack), partial(_put, files), files)
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
            held_out_sources=tuple(name_of(file) for file in own),
            train=shard_writer.train_split(files, dtype),
            held_out=shard_writer.held_out_split(files, dtype),
            skipped=files.counts["skipped"],
        )
        copy_tokenizer(codec, directory, files.directory)
        if part is None:
            manifest.save(files.directory)
        else:
            save_part(files, *part, settings, manifest)
        files.publish()
    return manifest


@dataclass(frozen=True)
class _Pack:
    """Packs a block's training and held-out documents."""

    choice: HeldOut
    held_out_files: frozenset[AnyPath]
    codec: Codec
    eos_token_id: int
    dtype: np.dtype[Any]

    def __call__(self, encoded: Encoded) -> Packed:
        documents, rows = encoded
        end = self.dtype.type(self.eos_token_id).tobytes()
        parts: dict[str, list[bytes]] = {"train": [], "held-out": [], HELD_OUT_TEXT: []}
        counts: Counter[str] = Counter()
        for document, bounds in zip(documents, pairwise(rows.bounds.tolist()), strict=True):
            train, held_out = self._split(document)
            for split, text in (("train", train), ("held-out", held_out)):
                if not text and (train or held_out or split == "held-out"):
                    continue  # an empty document is trained on
                whole = len(text) == len(document.text)
                ids = rows.ids[slice(*bounds)] if whole else self.codec.encode_to_numpy(text)
                parts[split] += (ids.astype(self.dtype).tobytes(), end)
                counts[f"{split}.documents"] += 1
                counts[f"{split}.characters"] += len(text)
            if held_out:
                line = json.dumps({"id": document.id, "text": held_out}, ensure_ascii=False)
                parts[HELD_OUT_TEXT].append(line.encode() + b"\n")
        return Packed({name: b"".join(pieces) for name, pieces in parts.items()}, counts)

    def _split(self, document: Document) -> tuple[str, str]:
        if document.file in self.held_out_files:
            return "", document.text
        return self.choice.split(document)


def _put(files: ResumableOutput, packed: Packed) -> None:
    shard_writer.append(
        files,
        train=packed.parts["train"],
        held_out=packed.parts["held-out"],
        held_out_text=packed.parts[HELD_OUT_TEXT],
    )


def copy_tokenizer(codec: Codec, source: Path, directory: Path) -> None:
    """Write the files of a tokenizer beside what it made.

    Args:
        codec: The tokenizer.
        source: The directory that it was read from.
        directory: Where they go.
    """
    codec.save(directory)
    # The originals may say more than the codec knows, to transformers for one.
    vocabulary = {VOCAB_FILE, EMOJI_FILE}
    for name in TOKENIZER_FILES:
        if name not in vocabulary and (source / name).is_file():
            shutil.copyfile(source / name, directory / name)
