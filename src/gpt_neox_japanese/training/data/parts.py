"""A part of a corpus, prepared by itself: which files it holds, and `part.json`, which says so.

Part I of N holds consecutive files of the corpus. It is a prepared directory with `part.json` in
the place of `manifest.json`: the same description, which part it is, and of what corpus. `merge`
puts all parts together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpt_neox_japanese.checks import is_count
from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.files.json_files import read_object
from gpt_neox_japanese.files.remote import AnyPath, file_size
from gpt_neox_japanese.tokenization.arrays import token_dtype
from gpt_neox_japanese.tokenization.resumable_output import ResumableOutput
from gpt_neox_japanese.training.data.shard_writer import PART
from gpt_neox_japanese.training.data.shards import HELD_OUT_TEXT, Manifest, manifest_of

__all__ = ["Part", "files_of_part", "save_part"]


def files_of_part(files: Sequence[AnyPath], index: int, count: int) -> list[AnyPath]:
    """The files of a corpus that a part holds: consecutive ones, about as much text in each part.

    Args:
        files: All of them, in order.
        index: Which part, from 1.
        count: How many parts there are.
    """
    sizes = np.array([file_size(file) for file in files], dtype=np.float64)
    middles = np.cumsum(sizes) - sizes / 2
    parts = (middles * count / max(1.0, sizes.sum())).astype(np.int64)
    parts = np.minimum(parts, count - 1)  # the middle of an empty last file is the end of the text
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


@dataclass(frozen=True)
class Part:
    """What `part.json` says.

    Attributes:
        directory: Where the part lies.
        index: Which part it is, from 1.
        count: How many there are.
        settings: What the ids of the whole corpus depend on.
        manifest: What the part holds.
    """

    directory: AnyPath
    index: int
    count: int
    settings: dict[str, Any]
    manifest: Manifest

    @classmethod
    def load(cls, directory: AnyPath) -> Part:
        """Read `part.json`, and make sure that the files are as long as it says.

        Args:
            directory: Of a part.

        Returns:
            The part.

        Raises:
            DataError: It is no part, or damaged.
            RemoteError: It is elsewhere, and nobody answers.
        """
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
            size = file_size(file) if file.is_file() else 0
            if size != expected:
                raise DataError(
                    f"{file} should have {expected} bytes, and has {size}; prepare part {index}"
                    " again"
                )
        return cls(directory, index, count, settings, manifest)
