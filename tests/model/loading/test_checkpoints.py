"""Weights come back as they were saved, from our files and from older ones."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from tests.model.conftest import MakeModel, MakePair

IDS = torch.tensor([[5, 6, 7, 8]])
EMBEDDING, HEAD = "gpt_neox_japanese.embed_in.weight", "embed_out.weight"


@pytest.fixture
def notices(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], list[str]]]:
    """What transformers logs, one string for each message that is at least a warning."""
    logger = logging.getLogger("transformers")
    # Where CI is set, transformers hands its messages on, and they would arrive twice.
    monkeypatch.setattr(logger, "propagate", False)
    logger.addHandler(caplog.handler)
    yield lambda: [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    logger.removeHandler(caplog.handler)


def write_checkpoint(model: nn.Module, directory: Path, tensors: dict[str, Tensor]) -> None:
    model.config.save_pretrained(directory)
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_is_the_same_model_and_so_is_its_copy(
    tiny_model: MakeModel, tmp_path: Path, notices: Callable[[], list[str]], tied: bool
) -> None:
    model = tiny_model(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path / "0")
    for generation in range(2):
        loaded = GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path / f"{generation}")
        assert torch.equal(loaded(IDS).logits, model(IDS).logits)
        assert loaded.config.tie_word_embeddings is tied
        assert (loaded.embed_out.weight is loaded.gpt_neox_japanese.embed_in.weight) is tied
        loaded.save_pretrained(tmp_path / f"{generation + 1}")
        saved = load_file(tmp_path / f"{generation + 1}" / "model.safetensors")
        assert (HEAD in saved) is not tied
    assert notices() == []


@pytest.mark.parametrize("shard_size", ["10KB", "1GB"])
def test_weights_in_pytorch_files_and_in_shards_are_loaded(
    tiny_model: MakeModel, tmp_path: Path, shard_size: str
) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path / "shards", max_shard_size=shard_size)
    model.config.save_pretrained(tmp_path / "pickled")
    torch.save(model.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    for name in ("shards", "pickled"):
        loaded = GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path / name)
        assert torch.equal(loaded(IDS).logits, model(IDS).logits)
        assert loaded.config.tie_word_embeddings


def test_shards_of_pytorch_files_are_loaded(tiny_model: MakeModel, tmp_path: Path) -> None:
    model = tiny_model()
    model.config.save_pretrained(tmp_path)
    names = sorted(model.state_dict())
    shards = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(names)}
    for shard in set(shards.values()):
        part = {name: model.state_dict()[name] for name in names if shards[name] == shard}
        torch.save(part, tmp_path / shard)
    index = {"metadata": {}, "weight_map": shards}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    loaded = GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16", "auto"], ids=str)
def test_a_dtype_may_be_given_in_every_spelling(
    tiny_model: MakeModel, tmp_path: Path, dtype: str | torch.dtype
) -> None:
    tiny_model().bfloat16().save_pretrained(tmp_path)
    loaded = GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    assert loaded(IDS).logits.dtype == torch.bfloat16


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}], ids=str)
def test_a_device_map_is_followed(
    tiny_model: MakeModel, tmp_path: Path, device_map: dict[str, Any] | str
) -> None:
    pytest.importorskip("accelerate")
    model = tiny_model()
    model.save_pretrained(tmp_path)
    loaded = GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path, device_map=device_map)
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)


def test_layers_may_be_offloaded_to_disk(tiny_model: MakeModel, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    model = tiny_model()
    model.save_pretrained(tmp_path)
    parts = ["embed_in", "layers.0", "layers.1", "final_layer_norm", "rotary_emb"]
    places = dict.fromkeys([*(f"gpt_neox_japanese.{part}" for part in parts), "embed_out"], "cpu")
    places["gpt_neox_japanese.layers.1"] = "disk"
    loaded = GPTNeoXJapaneseForCausalLM.from_pretrained(
        tmp_path, device_map=places, offload_folder=tmp_path / "offload"
    )
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)


def test_checkpoint_names_are_those_of_transformers(pair: MakePair) -> None:
    models = pair()
    ours, theirs = models.ours.state_dict(), models.theirs.state_dict()
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}


def test_a_checkpoint_of_transformers_4_loads_without_noise(
    tiny_model: MakeModel, tmp_path: Path, notices: Callable[[], list[str]]
) -> None:
    model = tiny_model()
    tensors = dict(model.state_dict())
    for index in range(2):
        attention = f"gpt_neox_japanese.layers.{index}.attention"
        tensors[f"{attention}.rotary_emb.inv_freq"] = torch.full((4,), 9.0)
        tensors[f"{attention}.bias"] = torch.ones(1, 1, 8, 8)
        tensors[f"{attention}.masked_bias"] = torch.tensor(-1e9)
    write_checkpoint(model, tmp_path, tensors)
    loaded, report = GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert notices() == []


def test_two_different_embeddings_are_both_kept_with_one_notice(
    tiny_model: MakeModel, tmp_path: Path, notices: Callable[[], list[str]]
) -> None:
    model = tiny_model()
    assert model.config.tie_word_embeddings
    tensors = dict(model.state_dict())
    tensors[HEAD] = tensors[EMBEDDING] + 1
    write_checkpoint(model, tmp_path, tensors)

    loaded = GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path)
    loaded.tie_weights()
    assert torch.equal(loaded.get_output_embeddings().weight, tensors[HEAD])
    assert torch.equal(loaded.get_input_embeddings().weight, tensors[EMBEDDING])
    assert len(notices()) == 1
    assert "tie_word_embeddings" in notices()[0]

    loaded.save_pretrained(tmp_path / "copy")
    copy = GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path / "copy")
    assert torch.equal(copy.get_output_embeddings().weight, tensors[HEAD])
    assert len(notices()) == 1


def test_a_state_dict_with_two_embeddings_unties_the_model(tiny_model: MakeModel) -> None:
    model = tiny_model()
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors[HEAD] += 1
    with pytest.warns(UserWarning, match="keeping both"):
        model.load_state_dict(tensors)
    assert torch.equal(model.embed_out.weight, tensors[HEAD])
    assert torch.equal(model.gpt_neox_japanese.embed_in.weight, tensors[EMBEDDING])
    assert model.config.tie_word_embeddings is False


def test_a_state_dict_with_one_embedding_twice_leaves_it_tied(tiny_model: MakeModel) -> None:
    model = tiny_model()
    model.load_state_dict(tiny_model(seed=1).state_dict())
    assert model.embed_out.weight is model.gpt_neox_japanese.embed_in.weight


def test_a_missing_weight_is_refused_by_name(tiny_model: MakeModel, tmp_path: Path) -> None:
    model = tiny_model()
    tensors = dict(model.state_dict())
    name = "gpt_neox_japanese.layers.1.attention.dense_bias"
    tensors.pop(name)
    write_checkpoint(model, tmp_path, tensors)
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path)


def test_a_grown_vocabulary_keeps_the_old_rows(tiny_model: MakeModel) -> None:
    model = tiny_model()
    before = model(IDS).logits
    model.resize_token_embeddings(70, mean_resizing=False)
    assert model.embed_out.weight is model.gpt_neox_japanese.embed_in.weight
    torch.testing.assert_close(model(IDS).logits[..., :61], before)
