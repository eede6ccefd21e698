from __future__ import annotations

import pytest
import torch
from torch import nn

from gpt_neox_japanese.training.machine.cpu_attention import causal_attention


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_values_and_gradients_are_those_of_torchs_attention(
    dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(3, 2, 4, 24, 8, dtype=dtype)
    weight = torch.randn(2, 24, 4, 8)

    def values_and_gradient(fused: bool) -> tuple[torch.Tensor, torch.Tensor]:
        packed = inputs.clone().requires_grad_()
        query, key, value = packed.float() if fused else packed
        if fused:
            mixed = nn.functional.scaled_dot_product_attention(
                query, key, value, is_causal=True, scale=0.3
            ).transpose(1, 2)
        else:
            mixed, _ = causal_attention(nn.Identity(), query, key, value, None, scaling=0.3)
        (mixed.float() * weight).sum().backward()
        assert packed.grad is not None
        return mixed.float(), packed.grad.float()

    for found, expected in zip(values_and_gradient(False), values_and_gradient(True), strict=True):
        torch.testing.assert_close(found, expected, atol=tolerance * 3, rtol=tolerance)


def test_no_token_reads_the_future() -> None:
    query, key, value = torch.randn(3, 1, 1, 8, 4)
    before, _ = causal_attention(nn.Identity(), query, key, value, None, scaling=1.0)
    key[:, :, 5:], value[:, :, 5:] = 100.0, 100.0
    after, _ = causal_attention(nn.Identity(), query, key, value, None, scaling=1.0)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])
