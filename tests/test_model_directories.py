"""One judgement: engine, model class, Auto class, `convert` and adapters refuse the same things."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from gpt_neox_japanese import GPTNeoXJapaneseConfig, GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.errors import ArgumentError, CheckpointError
from gpt_neox_japanese.files.tensor_files import read_tensors, read_weights
from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint
from gpt_neox_japanese.inference.loading.load import load_network
from gpt_neox_japanese.quantization.convert import convert
from gpt_neox_japanese.tokenizer.codec import Codec
from tests.tokenizer.small import vocabulary

EMBEDDING = "gpt_neox_japanese.embed_in.weight"
DENSE = "gpt_neox_japanese.layers.0.attention.dense.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that all of them take."""
    directory = tmp_path_factory.mktemp("models") / "whole"
    codec = Codec(vocabulary(["猫", "は"]))
    config = GPTNeoXJapaneseConfig(
        vocab_size=len(codec.vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    GPTNeoXJapaneseForCausalLM(config).save_pretrained(directory)
    codec.save(directory)
    return directory


@pytest.fixture
def directory(whole: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(whole, tmp_path / "model")


def run_engine(directory: Path) -> object:
    return load_network(Checkpoint.open(directory), threads=1, slots=1).close()


def run_convert(directory: Path) -> object:
    return convert(directory, directory.parent / "converted", 16, read=read_tensors)


def run_adapter(directory: Path) -> object:
    """An adapter of this model."""
    adapter = directory.parent / "adapter"
    adapter.mkdir(exist_ok=True)
    fields = {"peft_type": "LORA", "base_model_name_or_path": str(directory), "r": 1}
    fields |= {"target_modules": ["query_key_value"], "layers_to_transform": [0]}
    (adapter / "adapter_config.json").write_text(json.dumps(fields))
    layer = "base_model.model.gpt_neox_japanese.layers.0.attention.query_key_value"
    pair = {
        f"{layer}.lora_A.weight": torch.ones(1, 16),
        f"{layer}.lora_B.weight": torch.ones(48, 1),
    }
    save_file(pair, adapter / "adapter_model.safetensors", {"format": "pt"})
    return GPTNeoXJapaneseForCausalLM.from_pretrained(adapter)


READERS: dict[str, Callable[[Path], object]] = {
    "engine": run_engine,
    "class": GPTNeoXJapaneseForCausalLM.from_pretrained,
    "auto": AutoModelForCausalLM.from_pretrained,
    "convert": run_convert,
    "adapter": run_adapter,
}


def refused(directory: Path, said: str, *, but: str = "") -> None:
    for name, read in READERS.items():
        if name != but:
            with pytest.raises(CheckpointError, match=said):
                read(directory)
    assert not (directory.parent / "converted").exists()


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_all_of_them_take_what_is_whole(directory: Path) -> None:
    for read in READERS.values():
        read(directory)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", [16]),
        ("hidden_size", True),
        ("hidden_size", 10**30),
        ("hidden_size", 16.0),
        ("num_hidden_layers", None),
        ("num_attention_heads", float("nan")),
        ("vocab_size", "288"),
        ("intermediate_multiple_size", -4),
        ("max_position_embeddings", 10**7),
        ("num_labels", 10**7),
        ("layer_norm_eps", 0),
        ("layer_norm_eps", "small"),
        ("rotary_emb_base", -1),
        ("rope_theta", float("nan")),
        ("rotary_pct", []),
        ("rope_scaling", 3),
        ("rope_scaling", {"type": "linear", "factor": float("inf")}),
        ("hidden_act", None),
        ("dtype", "5.24.0"),
        ("tie_word_embeddings", "no"),
        ("eos_token_id", [True]),
        ("model_type", "gpt_neox"),
        ("attn_implementation", "someone/kernel"),
        ("_attn_implementation", "someone/kernel:function"),
        ("experts_implementation", {"": "someone/kernel"}),
        ("transformers_weights", "../other.safetensors"),
    ],
)
def test_a_field_that_makes_no_sense_is_refused_by_name(
    directory: Path, field: str, value: Any
) -> None:
    config = json.loads((directory / "config.json").read_text())
    for name in ("rope_parameters", "rotary_pct", "rotary_emb_base"):
        config.pop(name)
    (directory / "config.json").write_text(json.dumps(config | {field: value}))
    # By another type of model, transformers chooses another class than ours.
    but = "auto" if field == "model_type" else ""
    refused(directory, "rope_parameters" if field == "rope_scaling" else field, but=but)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", "16"),
        ("hidden_size", True),
        ("max_position_embeddings", 2**20 + 1),
        ("num_labels", 10**7),
        ("rotary_emb_base", 0),
        ("rotary_emb_base", float("nan")),
        ("layer_norm_eps", 0),
        ("hidden_act", "nothing"),
        ("rope_parameters", {"rope_type": "nothing"}),
        ("id2label", 3),
    ],
)
def test_python_cannot_set_them_either(field: str, value: Any) -> None:
    said = {"rope_parameters": "rope_type", "id2label": "configuration cannot be used"}
    with pytest.raises(ArgumentError, match=said.get(field, field)):
        GPTNeoXJapaneseConfig(**{field: value})


def test_a_value_that_was_assigned_is_checked_when_a_model_is_made() -> None:
    config = GPTNeoXJapaneseConfig(num_hidden_layers=1, hidden_size=16, num_attention_heads=2)
    config.rotary_emb_base = 0
    with pytest.raises(ArgumentError, match="rope_theta is 0"):
        GPTNeoXJapaneseForCausalLM(config)


def test_a_field_that_is_part_of_the_class_is_refused(directory: Path) -> None:
    change(directory / "config.json", to_dict=3)
    for read in (READERS["class"], READERS["auto"]):
        with pytest.raises(CheckpointError, match="'to_dict' is no field"):
            read(directory)


def other_tensors(kind: str) -> dict[str, torch.Tensor | None]:
    rows = len(vocabulary(["猫", "は"]))
    return {
        "missing": {DENSE: None},
        "shape": {DENSE: torch.ones(16, 17)},
        "rows": {EMBEDDING: torch.ones(rows - 1, 16)},
        "integers": {DENSE: torch.ones(16, 16).to(torch.int64)},
        "int8 that nothing describes": {DENSE: torch.ones(16, 16).to(torch.int8)},
        "a scale beside floats": {f"{DENSE}_scale": torch.ones(16)},
        "head": {"embed_out.weight": torch.ones(16, rows)},
    }[kind]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", f"{DENSE} is missing"),
        ("shape", rf"{DENSE} has shape \(16, 17\)"),
        ("rows", f"{EMBEDDING} has shape"),
        ("integers", DENSE),
        ("int8 that nothing describes", DENSE),
        ("a scale beside floats", f"{DENSE}_scale stands beside"),
        ("head", "embed_out.weight has shape"),
    ],
)
@pytest.mark.parametrize("pickled", [False, True])
def test_tensors_that_do_not_fit_are_refused_by_name(
    directory: Path, kind: str, said: str, pickled: bool
) -> None:
    file = directory / "model.safetensors"
    tensors = load_file(file) | other_tensors(kind)
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    if pickled:
        file.unlink()
        torch.save(tensors, directory / "pytorch_model.bin")
    else:
        save_file(tensors, file, {"format": "pt"})
    refused(directory, said)


@pytest.mark.parametrize("name", ["../x", "/x", "a\0b", "\udc80", "none.safetensors", 3])
def test_an_index_that_names_something_else_than_a_file_beside_it_is_refused(
    directory: Path, name: Any
) -> None:
    (directory / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {DENSE: name}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(directory, "weight file|No such file|surrogate pair")


@pytest.mark.parametrize(
    "file", ["config.json", "model.safetensors", "generation_config.json", "pytorch_model.bin"]
)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(
    directory: Path, file: str, kind: str
) -> None:
    if file == "pytorch_model.bin":
        (directory / "model.safetensors").unlink()
    (directory / file).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(directory / file)
    else:
        (directory / file).symlink_to("/dev/zero")
    # transformers chooses a class by config.json before we see it, and finds none.
    refused(directory, "is not a regular file", but="auto" if file == "config.json" else "")


@pytest.mark.parametrize("size", [0, 1000])
def test_weights_that_are_cut_off_are_refused(directory: Path, size: int) -> None:
    os.truncate(directory / "model.safetensors", size)
    refused(directory, "model.safetensors|weight files have")


def test_an_adapter_config_that_names_no_model_is_refused(directory: Path) -> None:
    run_adapter(directory)
    file = directory.parent / "adapter" / "adapter_config.json"
    for base in (None, 3, "", "a\0b", str(directory.parent / "adapter")):
        change(file, base_model_name_or_path=base)
        with pytest.raises(CheckpointError, match="base_model_name_or_path"):
            GPTNeoXJapaneseForCausalLM.from_pretrained(file.parent)


def test_an_adapter_is_not_taken_for_a_model(directory: Path) -> None:
    run_adapter(directory)
    shutil.copy(directory.parent / "adapter" / "adapter_config.json", directory)
    for read in (run_engine, run_convert):
        with pytest.raises(CheckpointError, match="holds an adapter, not a whole model"):
            read(directory)


def test_tensors_of_a_pickle_that_nobody_needs_are_not_read(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    tensors["more"] = torch.zeros(1).expand(2**40)  # four terabytes, were they written down
    (directory / "model.safetensors").unlink()
    torch.save(tensors, directory / "pytorch_model.bin")
    assert read_weights(directory)["more"].shape == (2**40,)
    run_engine(directory)
    GPTNeoXJapaneseForCausalLM.from_pretrained(directory)
    with pytest.raises(CheckpointError, match="more"):
        run_convert(directory)


def test_strided_tensors_of_a_pickle_are_the_same_model(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    before = load_network(Checkpoint.open(directory), threads=1, slots=1)
    tensors[DENSE] = tensors[DENSE].T.contiguous().T
    (directory / "model.safetensors").unlink()
    torch.save(tensors, directory / "pytorch_model.bin")
    after = load_network(Checkpoint.open(directory), threads=1, slots=1)
    for layer, other in zip(before.weights.layers, after.weights.layers, strict=True):
        assert other.dense.numbers.flags.c_contiguous
        np.testing.assert_array_equal(layer.dense.numbers, other.dense.numbers)


def test_a_long_context_takes_no_memory_before_it_is_used(directory: Path) -> None:
    import resource

    change(directory / "config.json", max_position_embeddings=2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    network = load_network(Checkpoint.open(directory), threads=1)
    assert network.capacity == 2**20
    network.close()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000  # kilobytes; tables of all positions would be 64 MB, the cache 1 GB
