"""A corpus prepared in parts, on as many machines as one likes, and put together again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.files.model_directory import TOKENIZER_FILES
from gpt_neox_japanese.files.remote import AnyPath, as_path
from gpt_neox_japanese.tokenization.arrays import MANIFEST
from gpt_neox_japanese.tokenization.resumable_output import ResumableOutput
from gpt_neox_japanese.training.data import shard_writer
from gpt_neox_japanese.training.data.parts import Part
from gpt_neox_japanese.training.data.shards import HELD_OUT_TEXT, Manifest

__all__ = ["merge"]

_BYTES_AT_ONCE = 2**24


def merge(
    parts: Sequence[str | AnyPath], output: str | AnyPath, *, resume: bool = False
) -> Manifest:
    """Put the parts of a corpus together: the result is that of one process, byte for byte.

    Args:
        parts: The directories of all parts, in any order, paths or URLs.
        output: The directory to make, a path or a URL; it must not exist, or be empty.
        resume: Continue a run that was interrupted, if there is one; see `resumable_output`.

    Returns:
        What `manifest.json` holds.

    Raises:
        DataError: A part is missing, doubled, damaged, or of another corpus, or there is an
            interrupted run that this one cannot continue.
        OutputError: `output` is not empty or cannot be written.
        RemoteError: Another machine does not answer.
    """
    ordered = _all_parts([Part.load(as_path(directory)) for directory in parts])
    first = ordered[0].manifest
    dtype = np.dtype(first.dtype)
    settings = {**ordered[0].settings, "number_of_parts": len(ordered)}
    with ResumableOutput(
        as_path(output), settings, resume=resume, names=shard_writer.NAMES, last=MANIFEST
    ) as files:
        for part in ordered[files.blocks :]:
            for name, _ in part.manifest.train.shards:
                for data in _pieces(part.directory / name):
                    shard_writer.append(files, train=data, held_out=b"", held_out_text=b"")
            for name, _ in part.manifest.held_out.shards:
                for data in _pieces(part.directory / name):
                    shard_writer.append(files, train=b"", held_out=data, held_out_text=b"")
            for data in _pieces(part.directory / HELD_OUT_TEXT):
                shard_writer.append(files, train=b"", held_out=b"", held_out_text=data)
            splits = {"train": part.manifest.train, "held-out": part.manifest.held_out}
            files.end_block(
                {
                    f"{kind}.{of}": getattr(split, of)
                    for kind, split in splits.items()
                    for of in ("documents", "characters")
                }
            )
        shard_writer.discard_if_untrainable(files)
        manifest = replace(
            first,
            sources=tuple(name for part in ordered for name in part.manifest.sources),
            held_out_sources=tuple(
                name for part in ordered for name in part.manifest.held_out_sources
            ),
            train=shard_writer.train_split(files, dtype),
            held_out=shard_writer.held_out_split(files, dtype),
            skipped=sum(part.manifest.skipped for part in ordered),
        )
        for name in TOKENIZER_FILES:
            if (ordered[0].directory / name).is_file():
                with (files.directory / name).open("wb") as stream:
                    stream.writelines(_pieces(ordered[0].directory / name))
        manifest.save(files.directory)
        files.publish()
    return manifest


def _all_parts(parts: Sequence[Part]) -> list[Part]:
    """The parts in order, which must be those of one corpus, each once."""
    if not parts:
        raise DataError("there is nothing to merge; give the directories of all parts")
    first = parts[0]
    found: dict[int, Part] = {}
    for part in parts:
        if part.count != first.count:
            raise DataError(
                f"{part.directory} is one of {part.count} parts, {first.directory} one of"
                f" {first.count}; merge the parts of one run"
            )
        mine, theirs = ({**p.settings, **_of_the_corpus(p.manifest)} for p in (part, first))
        for name in mine.keys() | theirs.keys():
            if mine.get(name) != theirs.get(name):
                raise DataError(
                    f"{part.directory} was made with another {name.replace('_', ' ')} than"
                    f" {first.directory}; prepare all parts with the same options"
                )
        if part.index in found:
            raise DataError(
                f"part {part.index} is there twice: {found[part.index].directory} and"
                f" {part.directory}; give each part once"
            )
        found[part.index] = part
    missing = [index for index in range(1, first.count + 1) if index not in found][:10]
    if missing:
        numbers = ", ".join(map(str, missing))
        raise DataError(
            f"of {first.count} parts {numbers} {'is' if len(missing) == 1 else 'are'} missing;"
            f" make it with `neox-ja prepare --part {missing[0]}/{first.count}`"
        )
    return [found[index] for index in sorted(found)]


def _of_the_corpus(manifest: Manifest) -> dict[str, Any]:
    """What all parts of a corpus have in common."""
    names = ("vocabulary_fingerprint", "vocabulary_size", "eos_token_id", "held_out_fraction")
    return {name: getattr(manifest, name) for name in names}


def _pieces(path: AnyPath) -> Iterator[bytes]:
    if path.is_file():  # a part of no files has no held-out text
        with path.open("rb") as stream:
            while data := stream.read(_BYTES_AT_ONCE):
                yield data
