"""The plug-in, without vLLM: what it tells vLLM, and what it leaves alone.

`scripts/test_vllm` runs it in vLLM itself.
"""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.interop.vllm.plugin import register

QUANTIZATION = "vllm.model_executor.layers.quantization"


class ModelRegistry:
    """Notes what it is told."""

    models: dict[str, str]

    @classmethod
    def register_model(cls, name: str, path: str) -> None:
        cls.models[name] = path


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Methods of quantising that a stand-in for vLLM was told of, by their names."""
    found: dict[str, Any] = {}
    ModelRegistry.models = {}

    def register_quantization_config(name: str) -> Any:
        return lambda config: found.setdefault(name, config)

    names = ("vllm", "vllm.model_executor", "vllm.model_executor.layers", QUANTIZATION)
    modules = {name: ModuleType(name) for name in (*names, f"{QUANTIZATION}.base_config")}
    vars(modules["vllm"])["ModelRegistry"] = ModelRegistry
    vars(modules[QUANTIZATION])["register_quantization_config"] = register_quantization_config
    vars(modules[f"{QUANTIZATION}.base_config"])["QuantizationConfig"] = object
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return found


def test_vllm_is_told_where_the_class_is_that_config_json_names(methods: dict[str, Any]) -> None:
    register()
    register()
    [(name, path)] = ModelRegistry.models.items()
    assert name == "GPTNeoXJapaneseForCausalLM"
    assert path == f"gpt_neox_japanese.interop.vllm.model:{name}"


def test_int8_and_int4_are_refused_with_the_way_out(methods: dict[str, Any]) -> None:
    register()
    asked = methods["neox_ja"].override_quantization_method
    with pytest.raises(CheckpointError, match="neox-ja convert DIR --to bf16"):
        asked({"quant_method": "neox_ja", "bits": 8}, None, hf_config=None)
    assert asked({"quant_method": "fp8"}, "fp8", hf_config=None) is None


FRESH = """
import sys
from types import ModuleType
import gpt_neox_japanese.interop.vllm.plugin
import gpt_neox_japanese
gpt_neox_japanese.register()
import torch
from gpt_neox_japanese import GPTNeoXJapaneseConfig, GPTNeoXJapaneseForCausalLM
model = GPTNeoXJapaneseForCausalLM(GPTNeoXJapaneseConfig(
    vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, bos_token_id=0,
    eos_token_id=1))
model(torch.tensor([[1, 2, 3]]))
found = {"vllm", "xgrammar", "llguidance", "numba", "llvmlite"} & set(sys.modules)
assert not found, found
"""


def test_neither_the_plug_in_nor_a_model_loads_numba_or_an_engine() -> None:
    subprocess.run([sys.executable, "-c", FRESH], check=True)
