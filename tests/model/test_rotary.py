from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.model.rotary import GPTNeoXJapaneseRotaryEmbedding, rotate
from tests.model.conftest import MakeConfig, MakeModel, MakePair


def tables(
    config: Any, positions: list[int], dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    rotary = GPTNeoXJapaneseRotaryEmbedding(config)
    return rotary(torch.zeros(1, dtype=dtype), torch.tensor([positions]))


def test_each_pair_of_channels_turns_by_its_own_angle(tiny_config: MakeConfig) -> None:
    config = tiny_config(rotary_pct=0.5, rotary_emb_base=100)  # 4 of 8 channels: 2 pairs
    states = torch.randn(1, 1, 1, 8, dtype=torch.float64)
    turned = rotate(states, *tables(config, [3]))
    for pair, angle in enumerate([3.0, 3.0 / 10]):
        point = torch.complex(states[..., pair], states[..., pair + 2])
        expected = point * torch.polar(torch.ones(1).double(), torch.tensor([angle]).double())
        torch.testing.assert_close(turned[..., pair], expected.real, atol=1e-6, rtol=0)
        torch.testing.assert_close(turned[..., pair + 2], expected.imag, atol=1e-6, rtol=0)
    assert torch.equal(turned[..., 4:], states[..., 4:])


def test_scores_depend_on_distance_only(tiny_config: MakeConfig) -> None:
    query, key = torch.randn(2, 1, 1, 1, 8).unbind()
    scores = [
        (
            rotate(query, *tables(tiny_config(), [at]))
            * rotate(key, *tables(tiny_config(), [at - 5]))
        )
        .sum()
        .item()
        for at in (5, 6, 40)
    ]
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-5)


CASTS = {
    "half": lambda model: model.half(),
    "to bfloat16": lambda model: model.to(torch.bfloat16),
    "half and back": lambda model: model.half().float(),
}


@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS)
def test_frequencies_stay_exact_under_a_cast(
    tiny_model: MakeModel, cast: Callable[[Any], Any]
) -> None:
    exact = tiny_model().gpt_neox_japanese.rotary_emb.inv_freq
    rotary = cast(tiny_model()).gpt_neox_japanese.rotary_emb
    assert rotary.inv_freq.dtype == torch.float32
    assert torch.equal(rotary.inv_freq, exact)
    assert torch.equal(rotary.original_inv_freq, exact)


def test_frequencies_stay_exact_when_loaded_in_half_precision(
    tiny_model: MakeModel, tmp_path: Path
) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path)
    loaded = GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.embed_out.weight.dtype == torch.bfloat16
    inv_freq = loaded.gpt_neox_japanese.rotary_emb.inv_freq
    assert torch.equal(inv_freq, model.gpt_neox_japanese.rotary_emb.inv_freq)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frequencies_are_right_in_a_model_built_without_memory(
    tiny_config: MakeConfig, tiny_model: MakeModel, dtype: torch.dtype
) -> None:
    expected = tiny_model()
    with torch.device("meta"):
        model = GPTNeoXJapaneseForCausalLM(tiny_config())
    model = model.to(dtype).to_empty(device="cpu")
    model.load_state_dict(expected.state_dict())
    rotary = model.gpt_neox_japanese.rotary_emb
    assert torch.equal(rotary.inv_freq, expected.gpt_neox_japanese.rotary_emb.inv_freq)


def test_tables_are_float32_for_half_precision_states(tiny_config: MakeConfig) -> None:
    cos, sin = tables(tiny_config(), [0, 1999], dtype=torch.float16)
    assert cos.dtype == sin.dtype == torch.float32
    assert cos.shape == (1, 1, 2, 4)
    assert cos[0, 0, 1, 0].item() == pytest.approx(torch.tensor(1999.0).double().cos().item(), 1e-4)


def test_frequencies_are_no_part_of_a_checkpoint(tiny_model: MakeModel) -> None:
    assert not [name for name in tiny_model().state_dict() if "inv_freq" in name]


@pytest.mark.parametrize("rope_type", ["linear", "dynamic", "yarn"])
def test_other_rope_types_are_those_of_transformers(pair: MakePair, rope_type: str) -> None:
    models = pair(
        max_position_embeddings=16,
        rope_parameters={"rope_type": rope_type, "rope_theta": 10000.0, "factor": 2.0},
    )
    for tokens in (20, 30, 10):  # "dynamic" stretches its frequencies and lets go again
        ids = torch.randint(3, 61, (1, tokens))
        torch.testing.assert_close(models.ours(ids).logits, models.theirs(ids).logits)
