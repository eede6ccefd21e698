"""Indexed datasets of gpt-neox, Megatron and NeMo Curator (`NAME.bin`, `NAME.idx`), read in place.

NAME.idx   MMIDIDX and two zero bytes, version 1 (u64), type code (u8), number of sequences (u64),
           of document bounds (u64), sizes (i32 each), byte offsets (i64 each), bounds (i64 each)
NAME.bin   the tokens, one sequence after the other

A directory may hold several, as NeMo Curator makes them; their order is that of the names.

Both may come from strangers: every count is compared with the file before it is believed, and no
id reaches the model before it is compared with the vocabulary (`ShardedTokens`).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.files.regular_files import check_regular
from gpt_neox_japanese.training.data.shards import ShardedTokens

__all__ = ["indexed_datasets", "open_indexed"]

_MAGIC = b"MMIDIDX\0\0"
_HEADER = struct.Struct("<9sQBQQ")
_DTYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
# So many document ends are looked at.
_LOOKED_AT = 1000


def indexed_datasets(path: Path) -> list[Path]:
    """Find the common names of the two files of indexed datasets.

    Args:
        path: Either file, their common name, or a directory of such files.

    Returns:
        Names without `.bin` and `.idx`; none if `path` is something else.

    Raises:
        DataError: An index is a pipe, a device or a directory.
    """
    if path.is_dir():
        prefixes = [index.with_suffix("") for index in sorted(path.glob("*.idx"))]
    else:
        prefixes = [path.with_suffix("") if path.suffix in {".bin", ".idx"} else path]
    prefixes = [prefix for prefix in prefixes if _with(prefix, ".idx").exists()]
    for prefix in prefixes:
        check_regular(_with(prefix, ".idx"), DataError)
    return prefixes


def open_indexed(
    prefixes: Sequence[Path], vocabulary_size: int, eos_token_id: int
) -> ShardedTokens:
    """Open indexed datasets, memory-mapped.

    Args:
        prefixes: Of `indexed_datasets`.
        vocabulary_size: What every id must be below.
        eos_token_id: The id that must end every document.

    Returns:
        Their tokens, one dataset after the other.

    Raises:
        DataError: An index is broken, does not fit its tokens, or documents have no end.
    """
    opened = [_open(prefix, eos_token_id) for prefix in prefixes]
    tokens = ShardedTokens([data for data in opened if len(data)], vocabulary_size)
    if not len(tokens):
        raise DataError(f"{prefixes[0]}.bin is empty; preprocess a corpus with text in it")
    return tokens


def _open(prefix: Path, eos_token_id: int) -> NDArray[np.integer[Any]]:
    index = _with(prefix, ".idx")
    dtype, sizes, offsets, bounds = _read_index(index)
    tokens = int(sizes.sum(dtype=np.int64))
    path = _with(prefix, ".bin")
    check_regular(path, DataError)
    found = path.stat().st_size if path.exists() else None
    if found != tokens * dtype.itemsize:
        raise DataError(
            f"{path} should have {tokens * dtype.itemsize} bytes, it "
            f"{'is missing' if found is None else f'has {found}'}; preprocess the corpus again"
        )
    ends = np.cumsum(sizes, dtype=np.int64)
    if not np.array_equal(offsets, (ends - sizes) * dtype.itemsize):
        _broken(index, "its sequences do not lie one after the other")
    if not tokens:
        return np.empty(0, dtype)
    data: NDArray[np.integer[Any]] = np.memmap(path, dtype, mode="r")
    last = bounds[1:][:_LOOKED_AT]
    last = ends[last[last > 0] - 1] - 1
    if not (data[last] == eos_token_id).all():
        raise DataError(
            f"documents of {path} do not end with the end-of-text id {eos_token_id}; preprocess "
            "the corpus with --append-eod and this vocabulary"
        )
    return data


def _read_index(path: Path) -> tuple[np.dtype[Any], Any, Any, Any]:
    size = path.stat().st_size
    with path.open("rb") as stream:
        header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.startswith(_MAGIC):
        _broken(path, "it does not begin with MMIDIDX")
    _, version, code, sequences, documents = _HEADER.unpack(header)
    if version != 1:
        _broken(path, f"it has version {version}, this program reads 1")
    if code not in _DTYPES:
        _broken(path, f"its tokens have type {code}, which is no integer type")
    # Python's integers do not overflow, so a count of any size is compared rightly.
    if size != _HEADER.size + 12 * sequences + 8 * documents:
        _broken(path, f"it names {sequences} sequences and {documents} bounds in {size} bytes")
    raw = np.memmap(path, np.uint8, mode="r", offset=_HEADER.size) if size > _HEADER.size else b""
    sizes = np.frombuffer(raw, "<i4", sequences)
    offsets = np.frombuffer(raw, "<i8", sequences, 4 * sequences)
    bounds = np.frombuffer(raw, "<i8", documents, 12 * sequences)
    if len(sizes) and sizes.min() < 0:
        _broken(path, "a sequence has a negative size")
    ordered = bool((np.diff(bounds) >= 0).all())
    if not len(bounds) or bounds[0] != 0 or bounds[-1] != sequences or not ordered:
        _broken(path, "its documents do not run from the first sequence to the last")
    return np.dtype(_DTYPES[code]), sizes, offsets, bounds


def _with(prefix: Path, suffix: str) -> Path:
    return prefix.with_name(prefix.name + suffix)


def _broken(path: Path, what: str) -> NoReturn:
    raise DataError(f"{path} is no index of a dataset: {what}; preprocess the corpus again")
