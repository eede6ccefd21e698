"""Adapters: trained, saved, resumed, merged; and what happens without PEFT."""

from __future__ import annotations

import builtins
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gpt_neox_japanese.errors import NeoXJapaneseError
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.training.run import train
from gpt_neox_japanese.training.settings import Architecture, Settings

BASE: dict[str, Any] = {"sequence_length": 16, "batch_size": 2, "dtype": "fp32", "log_every": 1}
LORA = Settings(
    **BASE, steps=4, save_every=2, lora_rank=4, learning_rate=0.05, save_dtype="fp32", merge=True
)


@pytest.fixture(scope="module")
def base(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("base") / "model"
    train(prepared, output, Settings(**BASE, steps=2, save_dtype="fp32"), Architecture(16, 2, 2))
    return output


@pytest.mark.filterwarnings("ignore")  # PEFT's and its dependencies' own
@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs PEFT")
@pytest.mark.parametrize("recompute", [False, True])
def test_adapters_are_trained_resumed_and_merged(
    base: Path, prepared: Path, tmp_path: Path, recompute: bool
) -> None:
    import dataclasses

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
    with pytest.raises(NeoXJapaneseError, match="--merge requires --lora-rank"):
        Settings(merge=True)
    assert Settings().uses_muon
    assert not Settings(lora_rank=4).uses_muon
