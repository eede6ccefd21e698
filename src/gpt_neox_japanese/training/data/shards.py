"""Prepared corpora on disk: token shards, the held-out works, and a manifest that describes them.

train-00000.bin …   raw tokens, little endian; every document is followed by the eos id
held-out.bin        the held-out documents' tokens, in the same form
held-out.jsonl      the held-out documents' text, for any evaluator
manifest.json       dtype, counts, vocabulary, sources; written last
vocab.txt, emoji.json, tokenizer_config.json
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.checks import is_count, is_finite, short_repr
from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.files.json_files import read_object
from gpt_neox_japanese.files.regular_files import check_regular, is_plain_name
from gpt_neox_japanese.files.remote import AnyPath
from gpt_neox_japanese.tokenization.arrays import MANIFEST, token_dtype

__all__ = ["Manifest", "PreparedData", "ShardedTokens", "Split", "manifest_of"]

FORMAT_VERSION = 1
TRAIN = "train-{:05d}.bin"
HELD_OUT = "held-out.bin"
HELD_OUT_TEXT = "held-out.jsonl"

Tokens = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Split:
    """The training or the held-out part: its sizes and its shards, `(file name, tokens)`."""

    documents: int
    characters: int
    tokens: int
    shards: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Manifest:
    """What a prepared directory holds and which vocabulary made it.

    Attributes:
        version: The layout's version.
        dtype: `uint16` or `uint32`, little endian.
        vocabulary_fingerprint: `Vocabulary.fingerprint` of the vocabulary that made the tokens.
        vocabulary_size: Number of ids.
        eos_token_id: The id that follows every document.
        held_out_fraction: The fraction of the text that was asked for.
        sources: Names of the corpus files, without their directories.
        train: The training part.
        held_out: The held-out part.
        skipped: Broken documents that were passed over.
        held_out_sources: Names of the files that were held out as they are.
    """

    version: int
    dtype: str
    vocabulary_fingerprint: str
    vocabulary_size: int
    eos_token_id: int
    held_out_fraction: float
    sources: tuple[str, ...]
    train: Split
    held_out: Split
    skipped: int = 0
    held_out_sources: tuple[str, ...] = ()

    def save(self, directory: Path) -> None:
        """Write `manifest.json` into a directory.

        Args:
            directory: It exists; a manifest that is there is overwritten.

        Raises:
            OSError: The disk is full or fails.
        """
        text = json.dumps(asdict(self), ensure_ascii=False, indent=2)
        (directory / MANIFEST).write_text(text + "\n", encoding="utf-8", newline="\n")

    @classmethod
    def load(cls, directory: Path) -> Manifest:
        """Read `manifest.json`.

        Args:
            directory: A directory that `prepare` made.

        Returns:
            What it says.

        Raises:
            DataError: It is missing, broken, or of another version.
        """
        path = directory / MANIFEST
        if not path.exists():
            raise DataError(
                f"{directory} is not a prepared corpus (no {MANIFEST}); make one with "
                "`neox-ja prepare`"
            )
        return manifest_of(read_object(path, DataError, _REMEDY), path)


def manifest_of(values: Any, path: AnyPath) -> Manifest:
    """A manifest from what a JSON file says.

    Args:
        values: What it says.
        path: The file, for the message.

    Returns:
        The manifest.

    Raises:
        DataError: It is broken, or of another version.
    """
    if not isinstance(values, dict):
        raise DataError(f"{path} has no manifest; {_REMEDY}")
    version = values.get("version")
    if version is True or version != FORMAT_VERSION:
        raise DataError(
            f"{path} has version {short_repr(version)}, this program reads {FORMAT_VERSION}; "
            f"{_REMEDY}"
        )
    _check_fields(path, values, _MANIFEST_FIELDS)
    size, expected = values["vocabulary_size"], token_dtype(values["vocabulary_size"]).name
    if values["dtype"] != expected:
        raise DataError(
            f"{path} says {short_repr(values['dtype'])}, but a vocabulary of {size} ids is stored"
            f" as {expected}; {_REMEDY}"
        )
    splits = {name: _split(path, values[name]) for name in ("train", "held_out")}
    names = {name: tuple(values.get(name, ())) for name in ("sources", "held_out_sources")}
    return Manifest(**{**values, **names, **splits})


def _split(path: AnyPath, values: dict[str, Any]) -> Split:
    _check_fields(path, values, _SPLIT_FIELDS)
    shards = tuple((name, tokens) for name, tokens in values["shards"])
    if sum(tokens for _, tokens in shards) != values["tokens"]:
        raise DataError(f"{path}: the shards have not the {values['tokens']} tokens; {_REMEDY}")
    return Split(**{**values, "shards": shards})


def _check_fields(
    path: AnyPath, values: Mapping[str, Any], kinds: Mapping[str, Callable[[Any], bool]]
) -> None:
    for name in sorted({*values, *kinds}, key=str):
        if name not in kinds:
            raise DataError(f"{path} has the unknown field {short_repr(name)}; {_REMEDY}")
        if name not in values and name not in _LATER_FIELDS:
            raise DataError(f"{path} has no field {name!r}; {_REMEDY}")
        if name in values and not kinds[name](values[name]):
            raise DataError(
                f"{path}: {name!r} is {short_repr(values[name])}, which `prepare` does not write; "
                f"{_REMEDY}"
            )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_shards(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(shard, list)
        and len(shard) == 2
        and is_plain_name(shard[0])
        and is_count(shard[1])
        and shard[1] > 0
        for shard in value
    )


_REMEDY = "prepare the corpus again"

# Earlier versions did not write them.
_LATER_FIELDS = ("skipped", "held_out_sources")

_SPLIT_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "documents": is_count,
    "characters": is_count,
    "tokens": is_count,
    "shards": _is_shards,
}
_MANIFEST_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "version": is_count,
    "dtype": _is_text,
    "vocabulary_fingerprint": _is_text,
    "vocabulary_size": is_count,
    "eos_token_id": is_count,
    "held_out_fraction": lambda value: is_finite(value) and 0 <= value < 1,
    "sources": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "held_out_sources": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "train": _is_object,
    "held_out": _is_object,
    "skipped": is_count,
}


class ShardedTokens:
    """The shards of a split as one array of tokens, memory-mapped.

    Args:
        shards: Integer arrays [tokens], of any length each.
        vocabulary_size: What every id must be below; None if it is known to be.

    Example:
        >>> tokens = ShardedTokens([np.array([1, 2, 3]), np.array([4, 5])], vocabulary_size=6)
        >>> len(tokens)
        5
        >>> tokens.read(1, 3)
        array([2, 3, 4])
    """

    def __init__(self, shards: Sequence[Tokens], vocabulary_size: int | None = None) -> None:
        self._shards = list(shards)
        self._vocabulary_size = vocabulary_size
        self._ends = np.cumsum([len(shard) for shard in self._shards], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._shards else 0

    def read(self, start: int, length: int) -> NDArray[np.int64]:
        """Copy consecutive tokens out of the shards.

        Args:
            start: The first of them, counted over all shards.
            length: How many.

        Returns:
            int64 [length].

        Raises:
            IndexError: They lie outside the shards.
            DataError: One of them is no id of the vocabulary.
        """
        if not 0 <= start <= start + length <= len(self):
            raise IndexError(f"tokens {start}+{length} lie outside the {len(self)} tokens")
        parts: list[Tokens] = []
        first, missing = start, length
        index = int(np.searchsorted(self._ends, start, side="right"))
        while missing > 0:
            shard = self._shards[index]
            begin = first - (int(self._ends[index]) - len(shard))
            parts.append(shard[begin : begin + missing])
            first += len(parts[-1])
            missing -= len(parts[-1])
            index += 1
        ids = np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)
        self._check(ids, start)
        return ids

    def _check(self, ids: NDArray[np.int64], start: int) -> None:
        size = self._vocabulary_size
        if size is None or not len(ids) or (ids.min() >= 0 and ids.max() < size):
            return
        wrong = int(np.argmax((ids < 0) | (ids >= size)))
        raise DataError(
            f"token {start + wrong} is {ids[wrong]}, but the vocabulary has ids 0 to {size - 1}; "
            "the data is damaged or was made with another vocabulary"
        )


class PreparedData:
    """A prepared directory, checked and opened.

    Attributes:
        directory: Where it lies.
        manifest: Its description.
        train: The training tokens.
        held_out: The held-out tokens.
    """

    def __init__(self, directory: Path) -> None:
        """Open a prepared directory.

        Args:
            directory: What `prepare` made.

        Raises:
            DataError: Something is missing, truncated, or does not fit the manifest.
        """
        self.directory = directory
        self.manifest = Manifest.load(directory)
        expected = np.dtype(self.manifest.dtype)
        self.train = self._open(self.manifest.train, expected)
        self.held_out = self._open(self.manifest.held_out, expected)

    def _open(self, split: Split, dtype: np.dtype[Any]) -> ShardedTokens:
        shards = []
        for name, tokens in split.shards:
            path = self.directory / name
            check_regular(path, DataError)
            size = path.stat().st_size if path.exists() else None
            if size != tokens * dtype.itemsize:
                found = "it is missing" if size is None else f"it has {size}"
                raise DataError(
                    f"{path} should have {tokens * dtype.itemsize} bytes, {found}; {_REMEDY}"
                )
            shards.append(np.memmap(path, dtype, mode="r"))
        return ShardedTokens(shards, self.manifest.vocabulary_size)

    def check_vocabulary(self, fingerprint: str, owner: Path) -> None:
        """Make sure the tokens were made with the vocabulary of `owner`.

        Args:
            fingerprint: `Vocabulary.fingerprint` of the vocabulary found at `owner`.
            owner: The directory it came from, for the message.

        Raises:
            DataError: They were not.
        """
        if fingerprint != self.manifest.vocabulary_fingerprint:
            raise DataError(
                f"{self.directory} was prepared with vocabulary "
                f"{self.manifest.vocabulary_fingerprint[:12]}…, {owner} has {fingerprint[:12]}…; "
                f"prepare the corpus again with --tokenizer {owner}"
            )
