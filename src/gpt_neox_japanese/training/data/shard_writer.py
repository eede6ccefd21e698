"""Writing the files that `shards` describes, from bytes that come in any pieces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import count, takewhile
from typing import Any

import numpy as np

from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.files.model_directory import TOKENIZER_FILES
from gpt_neox_japanese.tokenization.arrays import MANIFEST
from gpt_neox_japanese.tokenization.resumable_output import ResumableOutput
from gpt_neox_japanese.training.data.shards import HELD_OUT, HELD_OUT_TEXT, TRAIN, Split

__all__ = ["NAMES", "PART", "append", "discard_if_untrainable", "held_out_split", "train_split"]

PART = "part.json"
"""What stands in the place of the manifest in a part of a corpus; see `parts`."""

NAMES = re.compile(
    "|".join(
        [r"train-\d{5,}\.bin"]
        + [re.escape(name) for name in (HELD_OUT, HELD_OUT_TEXT, MANIFEST, PART, *TOKENIZER_FILES)]
    ),
    re.ASCII,
)
"""Matches the name of every file of a prepared corpus."""

# A multiple of every token's size. Shards are cut here and not between documents, so that they are
# the same whatever pieces they are written in.
_BYTES_PER_SHARD = 2**28


def append(files: ResumableOutput, *, train: bytes, held_out: bytes, held_out_text: bytes) -> None:
    """Append tokens, and the text of those that are held out.

    Args:
        files: The output.
        train: Tokens to train on.
        held_out: Tokens that are kept out of training.
        held_out_text: Lines of `held-out.jsonl`.
    """
    shards = len(_train_shards(files))
    shard = TRAIN.format(max(0, shards - 1))
    rest = memoryview(train)
    while rest:
        room = _BYTES_PER_SHARD - files.size(shard)
        if not room:
            shard, room = TRAIN.format(shards), _BYTES_PER_SHARD
        files.append(shard, bytes(rest[:room]))
        shards, rest = len(_train_shards(files)), rest[room:]
    if held_out:
        files.append(HELD_OUT, held_out)
    files.append(HELD_OUT_TEXT, held_out_text)


def train_split(files: ResumableOutput, dtype: np.dtype[Any]) -> Split:
    """What was written to train on.

    Args:
        files: The output; its counts tell documents and characters.
        dtype: Of the tokens.
    """
    return _split(files, "train", _train_shards(files), dtype)


def held_out_split(files: ResumableOutput, dtype: np.dtype[Any]) -> Split:
    """What was written and is held out; see `train_split`."""
    return _split(files, "held-out", [HELD_OUT] * bool(files.size(HELD_OUT)), dtype)


def discard_if_untrainable(files: ResumableOutput) -> None:
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


def _train_shards(files: ResumableOutput) -> list[str]:
    return list(takewhile(files.size, map(TRAIN.format, count())))


def _split(files: ResumableOutput, split: str, names: Sequence[str], dtype: np.dtype[Any]) -> Split:
    shards = tuple((name, files.size(name) // dtype.itemsize) for name in names)
    return Split(
        documents=files.counts[f"{split}.documents"],
        characters=files.counts[f"{split}.characters"],
        tokens=sum(tokens for _, tokens in shards),
        shards=shards,
    )
