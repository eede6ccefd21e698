"""The kernels in the model: products and attention of one step of decoding, in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from gpt_neox_japanese import GPTNeoXJapaneseConfig, GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.model.attention import eager_attention_forward
from gpt_neox_japanese.model.decode import cpu_kernels

BFLOAT = torch.bfloat16


def random(*size: int) -> Tensor:
    return torch.randn(*size, dtype=torch.float32).to(BFLOAT)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (3, 1), (2, 4)])
def test_product_is_exact_to_the_last_rounding(size: tuple[int, int]) -> None:
    weight, states = nn.Parameter(random(2051, 516)), random(*size, 516)
    assert cpu_kernels.can_use_gemv(states, weight)
    product = cpu_kernels.gemv(states, weight)
    assert product.shape == (*size, 2051)
    exact = states.double() @ weight.double().T
    # Half a step of bfloat16, and what float32 sums of 516 products are off by.
    torch.testing.assert_close(product.double(), exact, rtol=2**-8, atol=1e-4)


def test_product_is_left_to_torch() -> None:
    weight, states = nn.Parameter(random(2048, 512)), random(1, 8, 512)
    assert cpu_kernels.can_use_gemv(states, weight)
    assert not cpu_kernels.can_use_gemv(random(1, 9, 512), weight)
    assert not cpu_kernels.can_use_gemv(states.float(), weight)
    assert not cpu_kernels.can_use_gemv(states, nn.Parameter(weight.float()))
    assert not cpu_kernels.can_use_gemv(states, nn.Parameter(random(512, 2048).T))
    assert not cpu_kernels.can_use_gemv(states, nn.Parameter(random(64, 512)))
    with torch.enable_grad():
        assert not cpu_kernels.can_use_gemv(states, weight)


@pytest.mark.parametrize(("batch", "heads", "keys", "size"), [(1, 4, 7, 20), (3, 2, 2100, 40)])
def test_attention_over_a_cache_with_free_space(
    batch: int, heads: int, keys: int, size: int
) -> None:
    buffer = random(2, batch, heads, keys + 5, size)
    key, value = buffer[0, :, :, :keys], buffer[1, :, :, :keys]
    query = random(batch, heads, 1, size)
    assert cpu_kernels.can_use_decode_attention(query, key, value, None, 0.0)
    mixed = cpu_kernels.decode_attention(query, key, value)
    exact, _ = eager_attention_forward(
        nn.Identity(), query.double(), key.double(), value.double(), None, size**-0.5
    )
    assert mixed.shape == (batch, 1, heads, size)
    torch.testing.assert_close(mixed.double(), exact, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("broken", [float("nan"), 1e30])  # the product of two such is infinite
def test_attention_does_not_hide_scores_that_are_no_numbers(broken: float) -> None:
    query, key = random(1, 2, 1, 8), random(1, 2, 5, 8)
    query[0, 1], key[0, 1, 3] = broken, broken
    mixed = cpu_kernels.decode_attention(query, key, key)[0, 0]
    assert mixed.isnan().all(1).tolist() == [False, True]
    assert not mixed[0].isnan().any()


def test_attention_is_left_to_torch() -> None:
    query, key = random(1, 2, 1, 8), random(1, 2, 5, 8)
    assert cpu_kernels.can_use_decode_attention(query, key, key, None, 0.0)
    assert not cpu_kernels.can_use_decode_attention(random(1, 2, 5, 8), key, key, None, 0.0)
    assert not cpu_kernels.can_use_decode_attention(query, key, key, torch.zeros(1, 1, 1, 5), 0.0)
    assert not cpu_kernels.can_use_decode_attention(query, key, key, None, 0.1)
    assert not cpu_kernels.can_use_decode_attention(query.half(), key.half(), key.half(), None, 0.0)
    across = random(1, 5, 2, 8).transpose(1, 2)
    assert not cpu_kernels.can_use_decode_attention(query, across, across, None, 0.0)


def test_a_model_writes_the_same_with_the_kernels_as_with_torch() -> None:
    config = GPTNeoXJapaneseConfig(
        vocab_size=4096, hidden_size=512, num_hidden_layers=2, num_attention_heads=8
    )
    torch.manual_seed(4)  # of eight seeds the one whose best two ids are farthest apart
    model = GPTNeoXJapaneseForCausalLM(config).to(BFLOAT).eval()
    ids = torch.randint(0, 4096, (2, 12))
    options = {"max_new_tokens": 6, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    options |= {"output_logits": True, "return_dict_in_generate": True}
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        with_kernels = model.generate(ids, **options)
    # What sees every operation turns the kernels off.
    with profile(activities=[ProfilerActivity.CPU]) as all_seen, FlopCounterMode(display=False):
        without = model.generate(ids, **options)
    assert torch.equal(with_kernels.sequences, without.sequences)
    for ours, plain in zip(with_kernels.logits, without.logits, strict=True):
        torch.testing.assert_close(ours, plain, rtol=0.05, atol=0.05)

    def calls(of: profile, name: str) -> int:
        return sum(event.count for event in of.key_averages() if event.key == name)

    # Five decode steps, each with two MLPs' two large products and the head, and two attentions.
    assert calls(all_seen, "aten::linear") - calls(seen, "aten::linear") >= 5 * (2 * 2 + 1)
    attention = "aten::scaled_dot_product_attention"
    assert calls(all_seen, attention) - calls(seen, attention) == 5 * 2
