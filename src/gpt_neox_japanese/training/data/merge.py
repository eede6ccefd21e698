"""A corpus prepared in parts, on as many machines as one likes, and put together again.

Part I of N holds consecutive files of the corpus. It is a prepared directory with `part.json` in
the place of `manifest.json`: the same description, which part it is, and of what corpus.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpt_neox_japanese.checks import is_count
from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.files.json_files import read_object
from gpt_neox_japanese.files.model_directory import TOKENIZER_FILES
from gpt_neox_japanese.tokenization.arrays import MANIFEST, token_dtype
from gpt_neox_japanese.tokenization.resumable_output import ResumableOutput
from gpt_neox_japanese.training.data import shard_writer
from gpt_neox_japanese.training.data.shard_writer import PART
from gpt_neox_japanese.training.data.shards import HELD_OUT_TEXT, Manifest, manifest_of

__all__ = ["check_trainable", "files_of_part", "merge", "save_part"]

_BYTES_AT_ONCE = 2**24


def files_of_part(files: Sequence[Path], index: int, count: int) -> list[Path]:
    """The files of a corpus that a part holds: consecutive ones, about as much text in each part.

    Args:
        files: All of them, in order.
        index: Which part, from 1.
        count: How many parts there are.
    """
    sizes = np.array([file.stat().st_size for file in files], dtype=np.float64)
    middles = np.cumsum(sizes) - sizes / 2
    parts = (middles * count / max(1.0, sizes.sum())).astype(np.int64)
    return [file for file, part in zip(files, parts.tolist(), strict=True) if part == index - 1]


def save_part(
    files: ResumableOutput, index: int, count: int, settings: Mapping[str, Any], manifest: Manifest
) -> None:
    """Write `part.json`.

    Args:
        files: The output with the part.
        index: Which part, from 1.
        count: How many parts there are.
        settings: What the ids of the whole corpus depend on.
        manifest: What the part holds.
    """
    fields = {
        "part": index,
        "parts": count,
        "settings": settings,
        "manifest": asdict(manifest),
        "held_out_text_bytes": files.size(HELD_OUT_TEXT),
    }
    text = json.dumps(fields, ensure_ascii=False, indent=2)
    (files.directory / PART).write_text(text + "\n", encoding="utf-8", newline="\n")


def check_trainable(files: ResumableOutput) -> None:
    """Refuse a corpus of which nothing is left to train on, and keep nothing of it.

    Args:
        files: The output; its counts tell documents.

    Raises:
        DataError: There is no document to train on.
    """
    if not files.counts["train.documents"]:
        files.discard()
        raise DataError(
            f"no document is left to train on ({files.counts['held-out.documents']} held out); "
            "give more text or a smaller --held-out"
        )


def merge(parts: Sequence[Path], output: Path) -> Manifest:
    """Put the parts of a corpus together: the result is that of one process, byte for byte.

    Args:
        parts: The directories of all parts, in any order.
        output: The directory to make; it must not exist, or be empty.

    Returns:
        What `manifest.json` holds.

    Raises:
        DataError: A part is missing, doubled, damaged, or of another corpus.
        OutputError: `output` is not empty or cannot be written.
    """
    ordered = _all_parts([_Part.load(directory) for directory in parts])
    first = ordered[0].manifest
    dtype = np.dtype(first.dtype)
    with ResumableOutput(
        output, {}, resume=False, names=shard_writer.NAMES, last=MANIFEST
    ) as files:
        for part in ordered:
            for name, _ in part.manifest.train.shards:
                for data in _pieces(part.directory / name):
                    shard_writer.append(files, train=data, held_out=b"", held_out_text=b"")
            for name, _ in part.manifest.held_out.shards:
                for data in _pieces(part.directory / name):
                    shard_writer.append(files, train=b"", held_out=data, held_out_text=b"")
            for data in _pieces(part.directory / HELD_OUT_TEXT):
                shard_writer.append(files, train=b"", held_out=b"", held_out_text=data)
            for kind, split in (
                ("train", part.manifest.train),
                ("held-out", part.manifest.held_out),
            ):
                files.counts[f"{kind}.documents"] += split.documents
                files.counts[f"{kind}.characters"] += split.characters
        check_trainable(files)
        manifest = replace(
            first,
            sources=tuple(source for part in ordered for source in part.manifest.sources),
            train=shard_writer.train_split(files, dtype),
            held_out=shard_writer.held_out_split(files, dtype),
            skipped=sum(part.manifest.skipped for part in ordered),
        )
        for name in TOKENIZER_FILES:
            if (ordered[0].directory / name).is_file():
                shutil.copyfile(ordered[0].directory / name, files.directory / name)
        manifest.save(files.directory)
        files.publish()
    return manifest


@dataclass(frozen=True)
class _Part:
    directory: Path
    index: int
    count: int
    settings: dict[str, Any]
    manifest: Manifest

    @classmethod
    def load(cls, directory: Path) -> _Part:
        """Read `part.json`, and make sure that the files are as long as it says."""
        path = directory / PART
        if not path.is_file():
            raise DataError(
                f"{directory} is no part of a corpus (no {PART}); make it with"
                " `neox-ja prepare --part I/N`"
            )
        fields = read_object(path, DataError, "prepare this part again")
        numbers: list[Any] = [fields.get(name) for name in ("part", "parts", "held_out_text_bytes")]
        index, count, size = numbers
        settings = fields.get("settings")
        if not (all(map(is_count, numbers)) and 1 <= index <= count):
            raise DataError(f"{path} tells no part of a corpus; prepare this part again")
        if not isinstance(settings, dict):
            raise DataError(f"{path} has no settings; prepare this part again")
        manifest = manifest_of(fields.get("manifest"), path)
        itemsize = token_dtype(manifest.vocabulary_size).itemsize
        shards = (*manifest.train.shards, *manifest.held_out.shards)
        sizes = {name: tokens * itemsize for name, tokens in shards}
        sizes[HELD_OUT_TEXT] = size
        for name, expected in sizes.items():
            file = directory / name
            size = file.stat().st_size if file.is_file() else 0
            if size != expected:
                raise DataError(
                    f"{file} should have {expected} bytes, and has {size}; prepare part {index}"
                    " again"
                )
        return cls(directory, index, count, settings, manifest)


def _all_parts(parts: Sequence[_Part]) -> list[_Part]:
    """The parts in order, which must be those of one corpus, each once."""
    if not parts:
        raise DataError("there is nothing to merge; give the directories of all parts")
    first = parts[0]
    found: dict[int, _Part] = {}
    for part in parts:
        if part.count != first.count:
            raise DataError(
                f"{part.directory} is one of {part.count} parts, {first.directory} one of"
                f" {first.count}; merge the parts of one run"
            )
        for name in first.settings.keys() | part.settings.keys():
            if part.settings.get(name) != first.settings.get(name):
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


def _pieces(path: Path) -> Iterator[bytes]:
    if path.is_file():  # a part of no files has no held-out text
        with path.open("rb") as stream:
            while data := stream.read(_BYTES_AT_ONCE):
                yield data
