"""Tokens that datatrove wrote (`NAME.ds`, `NAME.ds.index`), read where they lie.

NAME.ds         the tokens of all documents, uint16 or uint32
NAME.ds.index   where each document ends, in tokens, uint64

A directory holds such a pair for each task; their order is that of the names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.training.data.shards import ShardedTokens

__all__ = ["datatrove_files", "index_of", "open_datatrove"]

_DTYPES = {2: "<u2", 4: "<u4"}
# So many document ends are looked at.
_LOOKED_AT = 1000


def datatrove_files(path: Path) -> list[Path]:
    """The files of tokens that a path means; none if it is something else.

    Args:
        path: A `.ds` file, or a directory of them.
    """
    if path.is_dir():
        return sorted(file for file in path.glob("*.ds") if file.is_file())
    return [path] if path.suffix == ".ds" and path.is_file() else []


def index_of(file: Path) -> Path:
    """The index that belongs to a file of tokens."""
    return file.with_name(file.name + ".index")


def open_datatrove(files: list[Path], vocabulary_size: int, eos_token_id: int) -> ShardedTokens:
    """Open files of tokens, memory-mapped.

    Args:
        files: Of `datatrove_files`.
        vocabulary_size: What every id must be below.
        eos_token_id: The id that must end every document.

    Returns:
        Their tokens, one file after the other.

    Raises:
        DataError: An index is missing or does not fit its tokens, or documents have no end.
    """
    opened = [_open(file, eos_token_id) for file in files]
    tokens = ShardedTokens([data for data in opened if len(data)], vocabulary_size)
    if not len(tokens):
        raise DataError(f"{files[0].parent} holds no tokens; tokenize a corpus with text in it")
    return tokens


def _open(file: Path, eos_token_id: int) -> NDArray[np.integer[Any]]:
    index, size = index_of(file), file.stat().st_size
    if not index.is_file():
        raise DataError(f"{index} is missing; tokenize the corpus with save_index=True")
    if index.stat().st_size % 8:
        raise DataError(f"{index} is no index of datatrove; tokenize the corpus again")
    ends = np.fromfile(index, "<u8")
    count = int(ends[-1]) if len(ends) else 0
    if bool((ends[1:] < ends[:-1]).any()):
        raise DataError(f"{index}: documents end before they begin; tokenize the corpus again")
    if not count and not size:
        return np.empty(0, np.uint16)
    dtype = _DTYPES.get(size // count) if count and size % count == 0 else None
    if dtype is None:
        raise DataError(
            f"{file} has {size} bytes, and {index.name} tells {count} tokens, of two or four bytes"
            " each; tokenize the corpus again"
        )
    data: NDArray[np.integer[Any]] = np.memmap(file, dtype, mode="r")
    looked = ends[ends > 0][:_LOOKED_AT].astype(np.int64) - 1
    if not (data[looked] == eos_token_id).all():
        raise DataError(
            f"documents of {file} do not end with the end-of-text id {eos_token_id}; tokenize them"
            " with gpt_neox_japanese.interop.datatrove and this vocabulary"
        )
    return data
