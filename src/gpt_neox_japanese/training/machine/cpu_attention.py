"""Causal attention for training on a CPU.

The fused kernel that torch has for CPUs saves memory, but for the short windows a CPU can train on
its backward pass takes more than twice the time of the plain products below, which run on the
bfloat16 units of the matrix library.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

__all__ = ["NAME", "causal_attention"]

NAME = "gpt_neox_japanese_cpu_training"


def causal_attention(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend to the past, in the interface of transformers' attention functions.

    Args:
        _module: Unused.
        query: [batch, heads, tokens, head_dim].
        key: As `query`.
        value: As `query`.
        attention_mask: Bool [batch, 1, tokens, tokens], True where a token may look; None for the
            whole past.
        scaling: Factor of the scores.
        dropout: Probability of dropping a weight.

    Returns:
        The mixed values, [batch, tokens, heads, head_dim], and None for the weights.
    """
    batch, heads, tokens, head_dim = query.shape
    blocked = torch.zeros((), dtype=query.dtype, device=query.device)
    if attention_mask is None:
        hidden = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).triu(1)
    else:
        hidden = ~attention_mask
    blocked = blocked.where(~hidden, -torch.inf).expand(batch, heads, tokens, tokens)
    scores = torch.baddbmm(
        blocked.reshape(batch * heads, tokens, tokens),
        query.reshape(batch * heads, tokens, head_dim),
        key.reshape(batch * heads, tokens, head_dim).transpose(1, 2),
        alpha=scaling,
    )
    weights = nn.functional.dropout(scores.softmax(-1), dropout)
    mixed = torch.bmm(weights, value.reshape(batch * heads, tokens, head_dim))
    return mixed.view(batch, heads, tokens, head_dim).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, causal_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
