from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.files.tensor_files import read_tensors, read_weights

WEIGHTS = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}


def same(read: dict[str, NDArray[Any]]) -> bool:
    return read.keys() == WEIGHTS.keys() and all(
        np.array_equal(read[name], weight.numpy()) for name, weight in WEIGHTS.items()
    )


def write_index(directory: Path, name: str, weight_map: object) -> None:
    (directory / f"{name}.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    assert same(read_weights(tmp_path))


def test_the_published_layout_is_read(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "pytorch_model.bin")
    assert same(read_weights(tmp_path))


def test_bfloat16_is_read_as_its_bits_and_nothing_else_is_changed(tmp_path: Path) -> None:
    weights = {"a": torch.randn(3, 4).bfloat16(), "b": torch.randn(2).half(), "c": torch.ones(1)}
    save_file(weights, tmp_path / "model.safetensors")
    assert np.array_equal(read_weights(tmp_path)["a"], weights["a"].view(torch.uint16).numpy())
    read = read_tensors(tmp_path)
    assert all(torch.equal(read[name], weight) for name, weight in weights.items())
    assert all(read[name].dtype == weight.dtype for name, weight in weights.items())


def test_what_is_done_with_weights_does_not_reach_the_file(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    read_weights(tmp_path)["a"][:] = 9
    assert same(read_weights(tmp_path))


def test_shards_are_read(tmp_path: Path) -> None:
    for name, weight in WEIGHTS.items():
        save_file({name: weight}, tmp_path / f"{name}.safetensors")
    write_index(tmp_path, "model.safetensors", {n: f"{n}.safetensors" for n in WEIGHTS})
    assert same(read_weights(tmp_path))


def test_directory_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"put model\.safetensors"):
        read_weights(tmp_path)


class Executes:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickle_that_executes_is_not_run(tmp_path: Path) -> None:
    torch.save({"a": Executes(tmp_path / "executed")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        read_weights(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Executes(tmp_path / "executed")))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        read_weights(tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 100, b"\x08" + b"\0" * 7 + b"{}"])
def test_broken_file_is_named(tmp_path: Path, file: str, content: bytes) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=file):
        read_weights(tmp_path)


def test_file_with_something_else_than_tensors_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="tensors by name"):
        read_weights(tmp_path)


@pytest.mark.parametrize("name", ["../a.safetensors", "/a.safetensors", "x/a.safetensors", ".."])
def test_index_that_points_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").mkdir()
    for place in (tmp_path.parent, tmp_path / "x"):
        save_file(WEIGHTS, place / "a.safetensors")
    write_index(tmp_path, "model.safetensors", {"a": name})
    with pytest.raises(CheckpointError, match="must lie beside their index"):
        read_weights(tmp_path)


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_index(tmp_path, "model.safetensors", {"a": "none.safetensors"})
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        read_weights(tmp_path)


@pytest.mark.parametrize("sharded", [False, True])
def test_links_are_followed_wherever_they_lead(tmp_path: Path, sharded: bool) -> None:
    directory, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    directory.mkdir()
    elsewhere.mkdir()
    save_file(WEIGHTS, elsewhere / "feed")
    name = "a.safetensors" if sharded else "model.safetensors"
    (directory / name).symlink_to(elsewhere / "feed")
    if sharded:
        write_index(elsewhere, "feed", dict.fromkeys(WEIGHTS, name))
        index = directory / "model.safetensors.index.json"
        index.symlink_to(elsewhere / "feed.index.json")
    assert same(read_weights(directory))


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "not fetched")
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*No such file"):
        read_weights(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin.index.json"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match="is not a regular file"):
        read_weights(tmp_path)


@pytest.mark.parametrize("weight_map", [[], None, {"a": {}}])
def test_broken_index_is_named(tmp_path: Path, weight_map: object) -> None:
    write_index(tmp_path, "model.safetensors", weight_map)
    with pytest.raises(CheckpointError, match="index"):
        read_weights(tmp_path)
