from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt_neox_japanese.errors import DataError, NeoXJapaneseError
from gpt_neox_japanese.tokenization.arrays import token_dtype
from gpt_neox_japanese.training.data.run_data import open_data
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
        ({"version": True}, "version True"),
        ({"train": {}}, "has no field 'characters'"),
        ({"train": 1}, "'train' is 1"),
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"dtype": "uint32"}, "stored as uint16"),
        ({"dtype": ["uint16"]}, "'dtype' is"),
        ({"eos_token_id": "0"}, "'eos_token_id' is '0'"),
        ({"vocabulary_size": -1}, "'vocabulary_size' is -1"),
        ({"vocabulary_size": 10**40}, "'vocabulary_size' is 1000"),
        ({"held_out_fraction": float("nan")}, "'held_out_fraction' is nan"),
        ({"sources": "works.jsonl"}, "'sources' is 'works"),
        ({"skipped": None}, "'skipped' is None"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    copy: Path, fields: dict[str, object], problem: str
) -> None:
    edit_manifest(copy, **fields)
    with pytest.raises(DataError, match=problem):
        PreparedData(copy)


@pytest.mark.parametrize(
    "shards",
    [
        [["../secret.bin", 1]],
        [["/etc/passwd", 1]],
        [["train-00000.bin\0", 1]],
        [["..", 1]],
        [[1, 1]],
        [["train-00000.bin", 0]],
        [["train-00000.bin", "1"]],
        [["train-00000.bin", True]],
        [["train-00000.bin"]],
        {"train-00000.bin": 1},
        None,
    ],
    ids=str,
)
def test_shards_that_prepare_does_not_write_are_refused(copy: Path, shards: object) -> None:
    split = {"documents": 1, "characters": 1, "tokens": 1, "shards": shards}
    edit_manifest(copy, train=split)
    with pytest.raises(DataError, match=r"manifest\.json: 'shards' is"):
        PreparedData(copy)


def test_shards_have_the_tokens_of_their_part(copy: Path) -> None:
    train = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))["train"]
    edit_manifest(copy, train={**train, "tokens": train["tokens"] + 1})
    with pytest.raises(DataError, match=r"the shards have not the \d+ tokens"):
        PreparedData(copy)


@pytest.mark.parametrize("fields", [{"eos_token_id": 1}, {"vocabulary_size": 9000}], ids=str)
def test_what_the_manifest_says_of_the_vocabulary_is_compared_with_it(
    copy: Path, fields: dict[str, object]
) -> None:
    edit_manifest(copy, **fields)
    with pytest.raises(DataError, match=r"vocab\.txt beside it does not"):
        open_data(copy, None)


@pytest.mark.parametrize("name", ["manifest.json", "train-00000.bin", "vocab.txt"])
def test_a_pipe_is_not_waited_for(copy: Path, name: str) -> None:
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(NeoXJapaneseError, match="is not a regular file"):
        open_data(copy, None)


def test_links_to_ordinary_files_are_followed(copy: Path, tmp_path: Path) -> None:
    shard = copy / "train-00000.bin"
    shard.rename(tmp_path / "blob")
    shard.symlink_to(tmp_path / "blob")
    assert len(open_data(copy, None).train)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "[]", "\ud800"])
def test_a_manifest_that_is_no_json_object_is_refused(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(DataError, match="prepare the corpus again"):
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
