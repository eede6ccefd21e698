"""The plain network against the model that transformers sees."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from gpt_neox_japanese import GPTNeoXJapaneseConfig, GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.inference import network as module
from gpt_neox_japanese.inference.network import Network, Shape

TINY: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
    "initializer_range": 0.4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
IDS = torch.tensor([5, 3, 1, 4, 9, 2, 6, 7])


def twins(**changes: Any) -> tuple[GPTNeoXJapaneseForCausalLM, Network]:
    torch.manual_seed(0)
    model = GPTNeoXJapaneseForCausalLM(GPTNeoXJapaneseConfig(**TINY | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    shape = Shape.of(model.config.to_dict())
    return model, Network(shape, model.state_dict(), dtype=torch.float32)


@pytest.mark.parametrize(
    ("rotary_pct", "tied", "layers", "act"),
    [
        *itertools.product([1.0, 0.5, 0.25], [True, False], [1, 3], ["gelu"]),
        (1.0, True, 2, "gelu_new"),
    ],
)
def test_scores_equal_the_model(rotary_pct: float, tied: bool, layers: int, act: str) -> None:
    model, network = twins(
        rotary_pct=rotary_pct, tie_word_embeddings=tied, num_hidden_layers=layers, hidden_act=act
    )
    with torch.inference_mode():
        expected = model(IDS[None]).logits[0, -1]
    scores = network.read(IDS, network.new_cache(8), 0)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


def test_reading_in_parts_equals_reading_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, network = twins()
    at_once = network.read(IDS, network.new_cache(8), 0)
    for sizes in ([1] * 8, [3, 1, 4], [5, 3]):
        cache, position = network.new_cache(20), 0
        for part in IDS.split(sizes):
            scores = network.read(part, cache, position)
            position += len(part)
        torch.testing.assert_close(scores, at_once, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(module, "_CHUNK", 3)
    chunked = network.read(IDS, network.new_cache(8), 0)
    torch.testing.assert_close(chunked, at_once, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(dtype: torch.dtype) -> None:
    model, network = twins()
    half = Network(network.shape, model.state_dict(), dtype=dtype)
    scores = half.read(IDS, half.new_cache(8), 0)
    assert scores.dtype == torch.float32
    exact = network.read(IDS, network.new_cache(8), 0)
    assert (scores - exact).abs().max() < 0.05 * exact.abs().max()


def test_both_spellings_of_the_rotary_numbers_are_read() -> None:
    new = {"rope_parameters": {"rope_theta": 500, "partial_rotary_factor": 0.5}}
    old = {"rotary_emb_base": 500, "rotary_pct": 0.5}
    assert Shape.of(TINY | new) == Shape.of(TINY | old)
    assert Shape.of(TINY | old).rotary_base == 500
    assert Shape.of(TINY | old).rotated == 8


def test_unneeded_tensors_are_ignored_and_missing_ones_named() -> None:
    model, network = twins()
    weights = dict(model.state_dict())
    weights["gpt_neox_japanese.layers.0.attention.masked_bias"] = torch.tensor(-1e9)
    Network(network.shape, weights, dtype=torch.float32)
    del weights["gpt_neox_japanese.layers.1.attention.dense_bias"]
    with pytest.raises(CheckpointError, match=r"layers\.1\.attention\.dense_bias is missing"):
        Network(network.shape, weights, dtype=torch.float32)


def test_tensor_of_another_shape_is_named() -> None:
    model, network = twins()
    weights = model.state_dict() | {"embed_out.weight": torch.zeros(49, 32)}
    with pytest.raises(CheckpointError, match=r"embed_out\.weight has shape \(49, 32\)"):
        Network(network.shape, weights, dtype=torch.float32)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers is '2'"),
        ({"num_attention_heads": 3}, "3 heads"),
        ({"rotary_pct": 0.01}, "rotary_pct 0.01"),
        ({"hidden_act": "relu"}, "'relu'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "'yarn'"),
    ],
)
def test_senseless_config_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        Shape.of(TINY | changes)


def test_config_with_absurd_sizes_costs_nothing() -> None:
    model, _ = twins()
    shape = Shape.of(TINY | {"num_hidden_layers": 10**9, "intermediate_multiple_size": 10**9})
    with pytest.raises(CheckpointError, match="do not fit"):
        Network(shape, model.state_dict(), dtype=torch.float32)
