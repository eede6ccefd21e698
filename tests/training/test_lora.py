"""Adapters: trained, saved, resumed, merged, also beside bfloat16 and integers; without PEFT."""

from __future__ import annotations

import builtins
import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt_neox_japanese.errors import NeoXJapaneseError
from gpt_neox_japanese.files.tensor_files import read_tensors
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.quantization.convert import convert
from gpt_neox_japanese.training.checkpoints.export import export
from gpt_neox_japanese.training.data.run_data import open_data
from gpt_neox_japanese.training.machine.memory_estimate import estimate_memory
from gpt_neox_japanese.training.model_setup import add_adapters, make_model
from gpt_neox_japanese.training.report.page import read_log
from gpt_neox_japanese.training.run import train
from gpt_neox_japanese.training.settings import LORA_TARGETS, Architecture, Settings
from tests.cli.run import assert_refused, run
from tests.training.machine.test_memory_estimate import decided

BASE: dict[str, Any] = {"sequence_length": 16, "batch_size": 2, "dtype": "fp32", "log_every": 1}
LORA = Settings(
    **BASE, steps=4, save_every=2, lora_rank=4, learning_rate=0.05, save_dtype="fp32", merge=True
)


WITH_PEFT = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs PEFT")
PEFT_WARNS = pytest.mark.filterwarnings("ignore")  # PEFT's and its dependencies' own


@pytest.fixture(scope="module")
def base(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("base") / "model"
    train(prepared, output, Settings(**BASE, steps=2, save_dtype="fp32"), Architecture(64, 2, 2))
    return output


@pytest.fixture(scope="module")
def integers(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same model in 8 and in 4 bits."""
    parent = tmp_path_factory.mktemp("integers")
    outputs = {bits: parent / f"int{bits}" for bits in (8, 4)}
    for bits, output in outputs.items():
        convert(base, output, bits, read=read_tensors)
    return outputs


@PEFT_WARNS
@WITH_PEFT
def test_adapters_stay_beside_the_model_that_they_were_trained_beside(
    base: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = shutil.copytree(base, tmp_path / "here" / "model")
    monkeypatch.chdir(here.parent)
    settings = dataclasses.replace(LORA, merge=False)
    assert train(prepared, tmp_path / "run", settings, "model")
    named = json.loads((tmp_path / "run" / "adapter_config.json").read_text(encoding="utf-8"))
    assert named["base_model_name_or_path"] == str(here)

    other = shutil.copytree(base, tmp_path / "there" / "model")
    weights = load_file(other / "model.safetensors")
    next(iter(weights.values())).add_(1)
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    longer = dataclasses.replace(settings, steps=6)
    with pytest.raises(NeoXJapaneseError, match="were trained beside another model of that name"):
        train(prepared, tmp_path / "run", longer, other, resume=True)
    shutil.rmtree(here)
    same = shutil.copytree(base, tmp_path / "same" / "model")
    for name in ("training_args.bin", "pytorch_model.bin", "README.md"):
        (same / name).write_bytes(b"is not read")
    assert train(prepared, tmp_path / "run", longer, same, resume=True)


@PEFT_WARNS
@WITH_PEFT
def test_adapters_of_a_model_of_the_hub_are_saved_without_asking_it(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = add_adapters(GPTNeoXJapaneseForCausalLM.from_pretrained(base), decided(lora_rank=2))
    model.peft_config["default"].base_model_name_or_path = "someone/small"
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", pytest.fail)
    export(model, model.state_dict(), base, tmp_path / "run", torch.float32)
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()


def first_measurement(run_directory: Path) -> float:
    name = "held_out_bits_per_character"
    return next(line[name] for line in read_log(run_directory / "loss.jsonl") if name in line)


@WITH_PEFT
@pytest.mark.filterwarnings("error")
def test_nobody_is_warned_of_a_layer_that_we_named_ourselves(base: Path) -> None:
    add_adapters(GPTNeoXJapaneseForCausalLM.from_pretrained(base), decided(lora_rank=2))


@PEFT_WARNS
@WITH_PEFT
@pytest.mark.parametrize("recompute", [False, True])
def test_adapters_are_trained_resumed_and_merged(
    base: Path, prepared: Path, tmp_path: Path, recompute: bool
) -> None:
    import peft

    settings = dataclasses.replace(LORA, gradient_checkpointing=recompute)
    assert train(prepared, tmp_path / "run", settings, base)
    adapter = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert all("lora_" in name for name in adapter)
    assert any(weight.abs().max() > 0 for name, weight in adapter.items() if "lora_B" in name)
    assert not (tmp_path / "run" / "model.safetensors").exists()

    shutil.copytree(tmp_path / "run", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoint-4")
    assert train(prepared, tmp_path / "cut", settings, base, resume=True)
    for name, weight in load_file(tmp_path / "cut" / "adapter_model.safetensors").items():
        assert torch.equal(weight, adapter[name]), name

    ids = torch.tensor([[5, 6, 7, 8]])
    merged = GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path / "run" / "merged")
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(base)
    before = model(ids).logits
    adapted = peft.PeftModel.from_pretrained(model, tmp_path / "run")
    torch.testing.assert_close(merged(ids).logits, adapted(input_ids=ids).logits)
    assert (merged(ids).logits - before).abs().max() > 1e-3
    assert (tmp_path / "run" / "merged" / "vocab.txt").is_file()


@PEFT_WARNS
@WITH_PEFT
@pytest.mark.parametrize("bits", [8, 4])
def test_adapters_beside_integers_are_trained_resumed_and_merged(
    base: Path, integers: dict[int, Path], prepared: Path, tmp_path: Path, bits: int
) -> None:
    import peft

    start = integers[bits]
    settings = dataclasses.replace(LORA, lora_target=LORA_TARGETS, lora_dropout=0.1)
    assert train(prepared, tmp_path / "run", settings, start)
    adapter = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in adapter} == set(LORA_TARGETS)
    said = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    assert set(said["target_modules"]) == set(LORA_TARGETS)
    assert said["lora_dropout"] == 0.1

    shutil.copytree(tmp_path / "run", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoint-4")
    assert train(prepared, tmp_path / "cut", settings, start, resume=True)
    for name, weight in load_file(tmp_path / "cut" / "adapter_model.safetensors").items():
        assert torch.equal(weight, adapter[name]), name

    ids = torch.tensor([[5, 6, 7, 8]])
    merged = GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path / "run" / "merged")
    plain = GPTNeoXJapaneseForCausalLM.from_pretrained(start).dequantize()
    before = plain(ids).logits
    adapted = peft.PeftModel.from_pretrained(plain, tmp_path / "run")
    torch.testing.assert_close(merged(ids).logits, adapted(input_ids=ids).logits)
    assert (merged(ids).logits - before).abs().max() > 1e-3

    result = run("merge", tmp_path / "run", "--output", tmp_path / "later", "--save-dtype", "fp32")
    assert result.exit_code == 0, result.stderr
    for name, weight in load_file(tmp_path / "later" / "model.safetensors").items():
        assert torch.equal(weight, merged.state_dict()[name]), name


@PEFT_WARNS
@WITH_PEFT
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_adapters_beside_bfloat16_begin_with_the_same_model(
    base: Path, prepared: Path, tmp_path: Path, dtype: Any
) -> None:
    measured = []
    for frozen in ("fp32", "bf16"):
        settings = dataclasses.replace(LORA, dtype=dtype, frozen_dtype=frozen, merge=False)
        assert train(prepared, tmp_path / frozen, settings, base)
        measured.append(first_measurement(tmp_path / frozen))
        adapter = load_file(tmp_path / frozen / "adapter_model.safetensors")
        assert {weight.dtype for weight in adapter.values()} == {torch.float32}
    assert measured[1] == pytest.approx(measured[0], rel=1e-3)


@PEFT_WARNS
@WITH_PEFT
def test_vectors_beside_matrices_in_bfloat16_are_not_rounded(
    base: Path, prepared: Path, tmp_path: Path
) -> None:
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(base)
    exact = {name: p for name, p in model.named_parameters() if p.ndim == 1}
    for parameter in exact.values():
        parameter.data.add_(1.0001e-3)  # needs more than eight bits
    shutil.copytree(base, tmp_path / "base", ignore=shutil.ignore_patterns("checkpoint-*"))
    model.save_pretrained(tmp_path / "base")
    settings = decided(sequence_length=16, batch_size=2, lora_rank=2, frozen_dtype="bf16")
    adapted = make_model(tmp_path / "base", open_data(prepared, None), settings)
    found = dict(adapted.get_base_model().named_parameters())
    for name, parameter in exact.items():
        assert torch.equal(found[name], parameter), name


@PEFT_WARNS
@WITH_PEFT
@pytest.mark.parametrize("bits", [8, 4])
def test_the_count_of_memory_is_that_of_the_integers(
    integers: dict[int, Path], prepared: Path, bits: int
) -> None:
    settings = decided(sequence_length=16, batch_size=2, lora_rank=4)
    model = make_model(integers[bits], open_data(prepared, None, None), settings)
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    expected = sum(p.nbytes for p in model.parameters()) + 3 * trained
    assert estimate_memory(model.config, settings).fixed == pytest.approx(expected, rel=0.04)


@PEFT_WARNS
@WITH_PEFT
@pytest.mark.parametrize("stored", ["bf16", 8, 4])
def test_adapters_get_the_gradients_that_they_get_beside_floats(
    base: Path, integers: dict[int, Path], prepared: Path, stored: Any
) -> None:
    import peft

    start = integers.get(stored, base)
    settings = decided(
        sequence_length=16,
        batch_size=2,
        lora_rank=4,
        lora_target=LORA_TARGETS,
        frozen_dtype=stored if stored == "bf16" else None,
    )
    model = make_model(start, open_data(prepared, None, None), settings)
    plain = GPTNeoXJapaneseForCausalLM.from_pretrained(start, dtype=torch.float32)
    if stored != "bf16":
        plain.dequantize()
    config = dataclasses.replace(model.peft_config["default"])
    exact = peft.get_peft_model(plain, config)
    ids = torch.randint(5, 290, (2, 16), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for name, parameter in exact.named_parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter) / 10
            trained[name].data = parameter.data.clone()
    for each in (model, exact):
        each.eval()(input_ids=ids, labels=ids).loss.backward()
    for name, parameter in exact.named_parameters():
        if parameter.requires_grad:
            error = (trained[name].grad - parameter.grad).norm() / parameter.grad.norm()
            assert error < 2e-2, (name, error)


def test_options_of_frozen_floats_are_refused_beside_integers(
    integers: dict[int, Path], prepared: Path, tmp_path: Path
) -> None:
    beside = Settings(**BASE, steps=1, lora_rank=4, frozen_dtype="bf16")
    with pytest.raises(NeoXJapaneseError, match="frozen-dtype is for weights that are floats"):
        train(prepared, tmp_path / "run", beside, integers[8])
    assert not (tmp_path / "run").exists()


def test_a_model_of_integers_is_trained_as_the_floats_that_they_stand_for(
    integers: dict[int, Path], prepared: Path, tmp_path: Path
) -> None:
    run, floats = tmp_path / "run", tmp_path / "floats"
    still = Settings(**BASE, steps=1, learning_rate=0.0, save_dtype="fp32")
    train(prepared, run, still, integers[8])
    GPTNeoXJapaneseForCausalLM.from_pretrained(integers[8]).dequantize().save_pretrained(floats)
    trained, expected = read_tensors(run), read_tensors(floats)
    assert trained.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(trained[name], tensor, rtol=1e-5, atol=0)
    assert "quantization_config" not in json.loads((run / "config.json").read_text())


@PEFT_WARNS
@WITH_PEFT
def test_the_command_says_where_the_merged_model_is(
    base: Path, prepared: Path, tmp_path: Path
) -> None:
    command = ["train", "--data", prepared, "--init-from", base, "--lora-rank", 2, "--steps", 1]
    command += ["--batch-size", 1, "--sequence-length", 16, "--lora-target", "dense"]
    result = run(*command, "--output", tmp_path / "run")
    assert f"neox-ja merge {tmp_path / 'run'} --output MODEL" in result.stdout
    result = run(*command, "--output", tmp_path / "both", "--merge")
    assert str(tmp_path / "both" / "merged") in result.stdout
    refused = run("generate", "--model", tmp_path / "both", "吾輩は")
    assert_refused(refused, f"name the model in '{tmp_path / 'both' / 'merged'}'")


def test_without_peft_the_remedy_is_named(
    base: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_peft(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "peft":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", no_peft)
    with pytest.raises(NeoXJapaneseError, match=r"pip install 'gpt-neox-japanese\[lora\]'"):
        train(prepared, tmp_path / "run", LORA, base)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(NeoXJapaneseError, match="use adamw or auto"):
        Settings(lora_rank=4, optimizer="muon")
    without_rank: list[dict[str, Any]] = [
        {"merge": True},
        {"lora_alpha": 8.0},
        {"lora_target": ("dense",)},
        {"lora_dropout": 0.1},
        {"frozen_dtype": "bf16"},
    ]
    for given in without_rank:
        option = "--" + next(iter(given)).replace("_", "-")
        with pytest.raises(NeoXJapaneseError, match=f"{option} requires --lora-rank"):
            Settings(**given)
    with pytest.raises(NeoXJapaneseError, match="'embed_out'; it must be one of query_key_value"):
        Settings(lora_rank=4, lora_target=("embed_out",))
    with pytest.raises(NeoXJapaneseError, match="--shard shares fp32 weights only"):
        Settings(lora_rank=4, frozen_dtype="bf16", shard=True)
    assert Settings().uses_muon
    assert not Settings(lora_rank=4).uses_muon
