from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.tokenization.arrays import token_dtype
from gpt_neox_japanese.training.data.shards import PreparedData, ShardedTokens


@pytest.fixture
def copy(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "copy"))


def edit_manifest(directory: Path, **fields: object) -> None:
    path = directory / "manifest.json"
    manifest = {**json.loads(path.read_text(encoding="utf-8")), **fields}
    path.write_text(json.dumps(manifest), encoding="utf-8")


def test_ids_take_two_bytes_while_they_fit() -> None:
    assert token_dtype(2**16) == np.dtype("<u2")
    assert token_dtype(2**16 + 1) == np.dtype("<u4")


def test_a_stream_reads_across_shards_as_one_array() -> None:
    shards = [np.arange(0, 5), np.arange(5, 6), np.arange(6, 12)]
    stream = ShardedTokens([shard.astype(np.uint16) for shard in shards])
    for start in range(13):
        for length in range(13 - start):
            assert stream.read(start, length).tolist() == list(range(start, start + length))
    with pytest.raises(IndexError):
        stream.read(10, 3)


def test_a_truncated_or_missing_shard_is_named(copy: Path) -> None:
    shard = copy / "train-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"train-00000\.bin should have \d+ bytes, it has \d+"):
        PreparedData(copy)
    shard.unlink()
    with pytest.raises(DataError, match="it is missing"):
        PreparedData(copy)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"version": 99}, "version 99"),
        ({"train": {}}, "lacks or misnames a field"),
        ({"surprise": 1}, "lacks or misnames a field"),
        ({"dtype": "uint32"}, "stored as uint16"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    copy: Path, fields: dict[str, object], problem: str
) -> None:
    edit_manifest(copy, **fields)
    with pytest.raises(DataError, match=problem):
        PreparedData(copy)


def test_a_directory_without_a_readable_manifest_is_refused(copy: Path) -> None:
    (copy / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="not JSON"):
        PreparedData(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(DataError, match="neox-ja prepare"):
        PreparedData(copy)


def test_another_vocabulary_is_refused(prepared: Path) -> None:
    with pytest.raises(DataError, match="prepare the corpus again with --tokenizer elsewhere"):
        PreparedData(prepared).check_vocabulary("0" * 64, Path("elsewhere"))
