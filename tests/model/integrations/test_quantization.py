"""Weights quantised by torchao while they are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import TorchAoConfig

from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from tests.model.conftest import MakeModel

pytestmark = pytest.mark.filterwarnings("ignore")  # torchao's own

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.mark.parametrize(("bits", "error"), [(8, 0.05), (4, 0.5)])
def test_a_quantised_model_is_nearly_the_model(
    tiny_model: MakeModel, tmp_path: Path, bits: int, error: float
) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    model = tiny_model(hidden_size=128)
    model.save_pretrained(tmp_path)
    config = quantization.IntxWeightOnlyConfig(
        weight_dtype=getattr(torch, f"int{bits}"), granularity=quantization.PerGroup(32)
    )
    loaded = GPTNeoXJapaneseForCausalLM.from_pretrained(
        tmp_path, quantization_config=TorchAoConfig(config), dtype=torch.float32
    )
    weight = loaded.gpt_neox_japanese.layers[0].mlp.dense_h_to_4h.weight
    assert type(weight).__module__.startswith("torchao.")
    expected, logits = model(IDS).logits, loaded(IDS).logits
    assert 0 < (logits - expected).norm() / expected.norm() < error
    options = {"attention_mask": torch.ones_like(IDS), "max_new_tokens": 3, "do_sample": False}
    assert loaded.generate(IDS, **options).shape == (1, 7)
