"""Directories from strangers: refused with a reason, with nothing run and nothing read outside."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.model.loading.safety import check_adapter_config
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from tests.model.conftest import MakeModel


class Program:
    """What a pickle may do when it is read: here, make a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def write_safetensors(path: Path, header: Any, data: bytes = b"") -> None:
    """A file with any header, however wrong."""
    encoded = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


@pytest.fixture
def directory(tiny_model: MakeModel, tmp_path: Path) -> Path:
    """A directory with a configuration and no weights."""
    path = tmp_path / "model"
    tiny_model().config.save_pretrained(path)
    return path


def refused(directory: Path, match: str) -> None:
    before = sorted(directory.parent.rglob("*"))
    for model_class in (GPTNeoXJapaneseForCausalLM, AutoModelForCausalLM):
        with pytest.raises(CheckpointError, match=match):
            model_class.from_pretrained(directory)
    assert sorted(directory.parent.rglob("*")) == before


@pytest.mark.parametrize("how", ["torch", "bare"])
def test_a_pickle_that_runs_a_program_is_refused(
    tiny_model: MakeModel, directory: Path, tmp_path: Path, how: str
) -> None:
    content = {**tensors(tiny_model()), "more": Program(tmp_path / "it ran")}
    with (directory / "pytorch_model.bin").open("wb") as file:
        if how == "torch":
            torch.save(content, file)
        else:
            pickle.dump(content, file, protocol=2)
    refused(directory, "holds something else than tensors")


@pytest.mark.parametrize("shard", ["../outside.safetensors", "{}/outside.safetensors", "..", "", 3])
@pytest.mark.parametrize("index", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_an_index_that_names_a_file_outside_is_refused(
    tiny_model: MakeModel, directory: Path, shard: int | str, index: str
) -> None:
    weights = tensors(tiny_model())
    save_file(weights, directory.parent / "outside.safetensors", metadata={"format": "pt"})
    if isinstance(shard, str):
        shard = shard.format(directory.parent)
    content = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(weights, shard)}
    (directory / index).write_text(json.dumps(content))
    refused(directory, "must lie beside their index")


@pytest.mark.parametrize("content", ["[]", "{", "{}", "[" * 100_000])
def test_a_broken_index_is_refused(directory: Path, content: Any) -> None:
    (directory / "model.safetensors.index.json").write_text(content)
    refused(directory, "index.json' (must hold a JSON object|is not JSON|has no metadata)")


@pytest.mark.parametrize(
    "name", ["model.safetensors", "pytorch_model.bin", "generation_config.json"]
)
def test_a_pipe_is_refused_and_not_waited_for(directory: Path, name: str) -> None:
    os.mkfifo(directory / name)
    refused(directory, "is not a regular file")


@pytest.mark.parametrize("model_class", [GPTNeoXJapaneseForCausalLM, AutoModelForCausalLM])
@pytest.mark.parametrize("shards", ["1GB", "20KB"])
def test_a_directory_of_links_to_a_data_drive_is_loaded(
    tiny_model: MakeModel, tmp_path: Path, model_class: Any, shards: str
) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path / "drive", max_shard_size=shards)
    (tmp_path / "links").mkdir()
    for file in (tmp_path / "drive").iterdir():
        (tmp_path / "links" / file.name).symlink_to(file)
    (tmp_path / "links" / "pytorch_model.bin").symlink_to(tmp_path / "not fetched")
    loaded = model_class.from_pretrained(tmp_path / "links")
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_a_subfolder_of_a_hub_snapshot_is_loaded(tiny_model: MakeModel, tmp_path: Path) -> None:
    model = tiny_model()
    repository = tmp_path / "models--someone--tiny"
    snapshot = repository / "snapshots" / "0123abcd"
    model.save_pretrained(snapshot / "sub")
    (repository / "blobs").mkdir()
    for file in (snapshot / "sub").iterdir():
        blob = repository / "blobs" / file.name[::-1]
        file.rename(blob)
        file.symlink_to(f"../../../blobs/{blob.name}")
    ids = torch.tensor([[5, 6, 7]])
    loaded = GPTNeoXJapaneseForCausalLM.from_pretrained(snapshot, subfolder="sub")
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_an_index_of_weights_that_were_not_fetched_does_no_harm(
    tiny_model: MakeModel, directory: Path
) -> None:
    model = tiny_model()
    model.save_pretrained(directory)
    content = {"metadata": {}, "weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(content))
    ids = torch.tensor([[5, 6, 7]])
    loaded = GPTNeoXJapaneseForCausalLM.from_pretrained(directory)
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_links_of_the_hub_cache_and_inside_the_directory_are_followed(
    tiny_model: MakeModel, tmp_path: Path
) -> None:
    model = tiny_model()
    repository = tmp_path / "models--someone--tiny"
    snapshot = repository / "snapshots" / "0123abcd"
    model.save_pretrained(snapshot)
    (repository / "blobs").mkdir()
    (snapshot / "model.safetensors").rename(repository / "blobs" / "feed")
    (snapshot / "model.safetensors").symlink_to("../../blobs/feed")
    (snapshot / "config.json").rename(snapshot / "other.json")
    (snapshot / "config.json").symlink_to("other.json")
    (tmp_path / "nickname").symlink_to(snapshot)
    ids = torch.tensor([[5, 6, 7]])
    for path in (snapshot, tmp_path / "nickname"):
        loaded = GPTNeoXJapaneseForCausalLM.from_pretrained(path)
        assert torch.equal(loaded(ids).logits, model(ids).logits)


HEAD = 61 * 32 * 4  # bytes


@pytest.mark.parametrize(
    "header",
    {
        "overlapping": {
            "embed_out.weight": {"dtype": "F32", "shape": [61, 32], "data_offsets": [0, HEAD]},
            "other": {"dtype": "F32", "shape": [32], "data_offsets": [64, 192]},
        },
        "larger than its data": {
            "embed_out.weight": {
                "dtype": "F32",
                "shape": [2**40, 2**20],
                "data_offsets": [0, HEAD],
            },
        },
        "beyond the file": {
            "embed_out.weight": {
                "dtype": "F32",
                "shape": [610, 32],
                "data_offsets": [0, 10 * HEAD],
            },
        },
    }.items(),
    ids=lambda case: case[0],
)
def test_tensors_that_do_not_fit_their_file_are_refused(directory: Path, header: Any) -> None:
    write_safetensors(directory / "model.safetensors", header[1], bytes(HEAD))
    refused(directory, "safetensors file is broken")


def test_a_header_longer_than_its_file_is_refused(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + bytes(10_000))
    refused(directory, "safetensors file is broken")


@pytest.mark.parametrize("size", ["num_hidden_layers", "hidden_size", "vocab_size"])
def test_an_absurd_size_is_refused(tiny_model: MakeModel, directory: Path, size: str) -> None:
    tiny_model().save_pretrained(directory)
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {size: 10**9}))
    with pytest.raises(ValueError, match=size):
        AutoModelForCausalLM.from_pretrained(directory)


def test_a_large_config_with_few_weights_is_refused(tiny_model: MakeModel, directory: Path) -> None:
    tiny_model().save_pretrained(directory)
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 4096}))
    refused(directory, "describes [0-9,]+ parameters, but the weight files have")


def test_an_adapter_whose_base_is_no_name_is_refused(directory: Path) -> None:
    pytest.importorskip("peft")
    fields = {"peft_type": "LORA", "base_model_name_or_path": "x" * 999}
    (directory / "adapter_config.json").write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        GPTNeoXJapaneseForCausalLM.from_pretrained(directory)


@pytest.mark.parametrize(
    "field",
    [
        {"rank_pattern": {"(([a-z_.0-9])+)+x": 3}},
        {"alpha_pattern": {"(a|.*)*x": 3}},
        {"exclude_modules": "(.|.)" * 30},
        {"layers_pattern": ["a?" * 30]},
        {"target_modules": ".*" * 9 + "x"},
        {"r": 10**7},
        {"r": True},
        {"rank_pattern": {"dense": -1}},
        {"init_lora_weights": "pissa_niter_1000000000"},
    ],
)
def test_an_adapter_that_would_be_searched_for_without_end_is_refused(
    directory: Path, field: dict[str, Any]
) -> None:
    path = directory / "adapter_config.json"
    path.write_text(json.dumps({"peft_type": "LORA", **field}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"has the pattern|: r is|rounds of work"):
        GPTNeoXJapaneseForCausalLM.from_pretrained(directory)


@pytest.mark.parametrize(
    "field",
    [
        {"target_modules": ["query_key_value"], "r": 8},
        {"target_modules": r".*\.layers\.[0-9]+\.attention\.(query_key_value|dense)"},
        {"target_modules": "all-linear", "rank_pattern": {r"^layers\.\d+\.dense$": 4}},
        {"target_modules": None, "layers_pattern": 3, "rank_pattern": {}, "r": None},
        {"peft_type": "OFT", "r": 0, "init_lora_weights": "pissa_niter_16"},
    ],
)
def test_patterns_that_people_write_are_read(tmp_path: Path, field: dict[str, Any]) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(field), encoding="utf-8")
    assert check_adapter_config(path) == field
