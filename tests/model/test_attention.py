from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gpt_neox_japanese.model.attention import eager_attention_forward
from tests.model.conftest import MakeModel


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, scaling: float = 1.0
) -> tuple[Tensor, Tensor]:
    return eager_attention_forward(torch.nn.Module().eval(), query, key, value, mask, scaling)


def test_a_half_precision_score_cannot_overflow() -> None:
    query = torch.full((1, 1, 1, 4), 200.0, dtype=torch.float16)
    key = torch.stack([query, -query], dim=2)[:, :, :, 0]  # scores of ±160,000
    value = torch.tensor([[[[1.0], [2.0]]]], dtype=torch.float16)
    mixed, weights = attend(query, key, value)
    assert weights.flatten().tolist() == [1.0, 0.0]
    assert mixed.item() == 1.0
    assert mixed.dtype == weights.dtype == torch.float16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("boolean", [True, False])
def test_a_blocked_key_gets_nothing_whatever_its_score(dtype: torch.dtype, boolean: bool) -> None:
    query = torch.full((1, 1, 1, 4), 180.0, dtype=dtype)
    key = torch.stack([-query, query], dim=2)[:, :, :, 0]
    value = torch.tensor([[[[1.0], [2.0]]]], dtype=dtype)
    mask = torch.tensor([[[[True, False]]]])
    if not boolean:
        mask = torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
    _, weights = attend(query, key, value, mask)
    assert weights.flatten().tolist() == [1.0, 0.0]


def test_an_additive_mask_shifts_scores() -> None:
    query, key, value = torch.randn(3, 1, 2, 3, 4).unbind()
    bias = torch.randn(1, 1, 3, 3)
    _, weights = attend(query, key, value, bias, scaling=0.5)
    expected = (query @ key.mT * 0.5 + bias).softmax(-1)
    torch.testing.assert_close(weights, expected)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_large_scores_give_finite_half_precision_logits(
    tiny_model: MakeModel, implementation: str
) -> None:
    model = tiny_model()
    with torch.no_grad():
        for layer in model.gpt_neox_japanese.layers:
            layer.attention.query_key_value.weight.mul_(100)
            layer.attention.dense.weight.mul_(0.01)
    model.set_attn_implementation(implementation)
    ids = torch.randint(3, 61, (2, 9))
    reference = model(ids).logits
    logits = model.half()(ids).logits
    assert logits.isfinite().all()
    assert (logits.float() - reference).abs().max() < 0.1 * reference.abs().max()


def test_only_the_last_layer_has_a_bias(tiny_model: MakeModel) -> None:
    biases = [layer.attention.dense_bias for layer in tiny_model().gpt_neox_japanese.layers]
    assert [bias is not None for bias in biases] == [False, True]


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_masked_head_is_a_head_that_says_nothing(
    tiny_model: MakeModel, implementation: str
) -> None:
    model = tiny_model()
    model.set_attn_implementation(implementation)
    ids = torch.randint(3, 61, (2, 6))
    head_mask = torch.tensor([[1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    masked = model(ids, head_mask=head_mask).logits
    with torch.no_grad():  # the same heads, removed from the weights
        for layer, keep in zip(model.gpt_neox_japanese.layers, head_mask, strict=True):
            layer.attention.dense.weight.mul_(keep.repeat_interleave(8))
    torch.testing.assert_close(masked, model(ids).logits, rtol=1e-5, atol=1e-5)


def test_one_head_mask_counts_for_every_layer(tiny_model: MakeModel) -> None:
    model = tiny_model()
    ids = torch.randint(3, 61, (2, 6))
    keep = torch.tensor([1.0, 0.0, 0.5, 1.0])
    torch.testing.assert_close(
        model(ids, head_mask=keep).logits, model(ids, head_mask=keep.expand(2, 4)).logits
    )


def test_weights_of_a_masked_head_are_zero(tiny_model: MakeModel) -> None:
    model = tiny_model(attn_implementation="eager")
    keep = torch.tensor([1.0, 0.0, 1.0, 1.0])
    out = model(torch.randint(3, 61, (1, 6)), head_mask=keep, output_attentions=True)
    assert not out.attentions[0][:, 1].any()
    assert out.attentions[0][:, 0].sum().item() == pytest.approx(6)
