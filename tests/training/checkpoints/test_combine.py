"""Means of models and merged adapters, against the same sums written out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt_neox_japanese import Codec, GPTNeoXJapaneseForCausalLM, TextGenerator
from gpt_neox_japanese.errors import (
    ArgumentError,
    CheckpointError,
    OutputError,
    VocabularyError,
)
from gpt_neox_japanese.training.checkpoints.combine import average_models, merge_adapter
from tests.cli.run import assert_refused, run
from tests.model.small import small_model
from tests.tokenizer.small import vocabulary

CODEC = Codec(vocabulary([*"猫犬とがいた。"]))


def save_model(directory: Path, seed: int, codec: Codec = CODEC, **changes: Any) -> Path:
    torch.manual_seed(seed)
    model = small_model(codec, **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(directory)
    codec.save(directory)
    return directory


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return [save_model(tmp_path / f"model-{seed}", seed) for seed in range(3)]


@pytest.mark.parametrize("shares", [None, (1, 2, 1), (0, 0, 5), (1e308, 1e308, 1e308)])
def test_every_weight_is_the_mean(
    models: list[Path], tmp_path: Path, shares: tuple[float, ...] | None
) -> None:
    size = average_models(models, tmp_path / "mean", shares)
    found, *each = (load_file(m / "model.safetensors") for m in (tmp_path / "mean", *models))
    counts = torch.tensor(shares or (1, 1, 1), dtype=torch.float64)
    counts /= counts.max()
    assert size == sum(tensor.numel() for tensor in found.values())
    for name, tensor in found.items():
        stacked = torch.stack([weights[name].double() for weights in each])
        mean = torch.einsum("i,i...->...", counts / counts.sum(), stacked)
        torch.testing.assert_close(tensor, mean.to(tensor.dtype), rtol=1e-6, atol=1e-7)
    with TextGenerator.from_pretrained(tmp_path / "mean", threads=1) as generator:
        assert generator.generate("猫", max_new_tokens=3, seed=1)


def test_models_that_differ_in_more_than_weights_are_refused(
    models: list[Path], tmp_path: Path
) -> None:
    wide = save_model(tmp_path / "wide", 1, hidden_size=64)
    other = save_model(tmp_path / "other", 1, Codec(vocabulary([*"猫犬とがいた、"])))
    for odd, said in ((wide, "another shape"), (other, "another vocabulary")):
        with pytest.raises(CheckpointError, match=said):
            average_models([models[0], odd], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rotary_emb_base", 500.0),
        ("rotary_pct", 0.5),
        ("hidden_act", "relu"),
        ("layer_norm_eps", 1e-3),
        ("tie_word_embeddings", False),
    ],
)
def test_models_that_compute_otherwise_are_refused(
    models: list[Path], tmp_path: Path, name: str, value: Any
) -> None:
    odd = save_model(tmp_path / "odd", 1, **{name: value})
    said = "rope_parameters" if name.startswith("rotary") else name
    with pytest.raises(CheckpointError, match=f"has {said} .*compute alike"):
        average_models([models[0], odd], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "two models or more"),
        (("--share", 1), "two models or more"),
    ],
)
def test_one_model_has_no_mean(
    models: list[Path], tmp_path: Path, arguments: tuple[object, ...], said: str
) -> None:
    assert_refused(run("average", models[0], "--output", tmp_path / "mean", *arguments), said)


@pytest.mark.parametrize("shares", [(1,), (1, -1), (0, 0), (1, float("nan"))])
def test_shares_that_make_no_sense_are_refused(
    models: list[Path], tmp_path: Path, shares: tuple[float, ...]
) -> None:
    with pytest.raises(ArgumentError, match="share"):
        average_models(models[:2], tmp_path / "mean", shares)


def test_nothing_is_overwritten(models: list[Path]) -> None:
    with pytest.raises(OutputError, match="not empty"):
        average_models(models[:2], models[2])


# PEFT asks what transformers has renamed.
ignores_peft = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


def save_adapter(base: Path, directory: Path) -> Path:
    peft = pytest.importorskip("peft")
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=["query_key_value"], task_type="CAUSAL_LM")
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    adapted.save_pretrained(directory)
    return directory


@pytest.fixture
def adapter(models: list[Path], tmp_path: Path) -> Path:
    return save_adapter(models[0], tmp_path / "adapter")


@ignores_peft
def test_merged_model_writes_what_the_adapted_one_writes(adapter: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    result = run("merge", adapter, "--output", merged, "--save-dtype", "fp32")
    assert result.exit_code == 0, result.output
    adapted = GPTNeoXJapaneseForCausalLM.from_pretrained(adapter, dtype=torch.float32).eval()
    alone = GPTNeoXJapaneseForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    ids = torch.tensor([CODEC.encode("猫と犬がいた。")])
    with torch.inference_mode():
        torch.testing.assert_close(adapted(ids).logits, alone(ids).logits, rtol=1e-4, atol=1e-5)
    assert Codec.load(merged).fingerprint == CODEC.fingerprint


@ignores_peft
def test_adapters_without_their_model_are_refused(
    adapter: Path, models: list[Path], tmp_path: Path
) -> None:
    wide = save_model(tmp_path / "wide", 1, hidden_size=64)
    output = tmp_path / "merged"
    with pytest.raises(CheckpointError, match="--base"):
        merge_adapter(adapter, output, str(wide), torch.float32)
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        merge_adapter(models[1], output, None, torch.float32)
    config = adapter / "adapter_config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "base_model_name_or_path": None}))
    with pytest.raises(CheckpointError, match="--base"):
        merge_adapter(adapter, output, None, torch.float32)
    assert not output.exists()


@ignores_peft
@pytest.mark.parametrize("layers", [1, 3])
def test_adapters_of_a_model_with_other_layers_are_refused(tmp_path: Path, layers: int) -> None:
    base, other = (
        save_model(tmp_path / f"of-{count}", 0, num_hidden_layers=count) for count in (2, layers)
    )
    adapter = save_adapter(base, tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=r"layers\.\d\.attention.* --base"):
        merge_adapter(adapter, tmp_path / "merged", str(other), torch.float32)
    assert not (tmp_path / "merged").exists()


@ignores_peft
@pytest.mark.parametrize(
    ("name", "data"),
    [("adapter_model.safetensors", b"\x08"), ("adapter_config.json", b'{"peft_type": 5}')],
)
def test_an_adapter_that_is_damaged_is_refused(
    adapter: Path, models: list[Path], tmp_path: Path, name: str, data: bytes
) -> None:
    (adapter / name).write_bytes(data)
    with pytest.raises(CheckpointError, match="cannot be added"):
        merge_adapter(adapter, tmp_path / "merged", str(models[0]), torch.float32)
    assert not (tmp_path / "merged").exists()


@ignores_peft
@pytest.mark.parametrize("where", ["adapter", "base"])
def test_a_merged_model_has_the_vocabulary_that_it_was_trained_with(
    adapter: Path, models: list[Path], tmp_path: Path, where: str
) -> None:
    if where == "adapter":
        vocabulary([*"猫犬とがいた。、吾輩は"]).save(adapter)
    else:
        (models[0] / "vocab.txt").unlink()
    with pytest.raises((CheckpointError, VocabularyError), match=r"vocab\.txt"):
        merge_adapter(adapter, tmp_path / "merged", str(models[0]), torch.float32)
    assert not (tmp_path / "merged").exists()


def test_a_mean_is_of_whole_models(models: list[Path], tmp_path: Path) -> None:
    for model in models:
        weights = load_file(model / "model.safetensors")
        del weights["gpt_neox_japanese.final_layer_norm.bias"]
        save_file(weights, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"final_layer_norm\.bias"):
        average_models(models, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_a_mean_that_no_model_computes_with_is_not_written(
    models: list[Path], tmp_path: Path
) -> None:
    path = models[0] / "generation_config.json"
    whole = path.read_bytes()
    path.write_text('{"use_cache": "yes"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="use_cache is 'yes'"):
        average_models(models, tmp_path / "mean")
    path.write_bytes(whole)
    weights = load_file(models[1] / "model.safetensors")
    name = "gpt_neox_japanese.final_layer_norm.bias"
    weights[name][3] = float("nan")
    save_file(weights, models[1] / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=f"{name} that are not finite"):
        average_models(models, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


@ignores_peft
def test_adapters_with_broken_numbers_are_not_merged(
    adapter: Path, models: list[Path], tmp_path: Path
) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    next(iter(weights.values()))[0, 0] = float("inf")
    save_file(weights, adapter / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="not finite"):
        merge_adapter(adapter, tmp_path / "merged", str(models[0]), torch.float32)
    assert not (tmp_path / "merged").exists()


@ignores_peft
@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("adapter_model.safetensors", "folder", "not a regular file"),
        ("adapter_model.safetensors", "missing", r"has no adapter_model\.safetensors"),
        ("adapter_config.json", "pipe", "not a regular file|has no adapter_config"),
        ("adapter_model.safetensors", "pipe", "not a regular file"),
    ],
)
def test_adapters_are_files(
    adapter: Path, models: list[Path], tmp_path: Path, name: str, kind: str, said: str
) -> None:
    (adapter / name).unlink()
    if kind == "folder":
        (adapter / name).mkdir()
    elif kind == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("this system has no pipes with names")
        os.mkfifo(adapter / name)
    with pytest.raises(CheckpointError, match=said):
        merge_adapter(adapter, tmp_path / "merged", str(models[0]), torch.float32)
    assert not (tmp_path / "merged").exists()
