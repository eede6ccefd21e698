"""Causal self-attention: which earlier tokens each token reads, and what it takes from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache
from transformers.generation.continuous_batching.cache import PagedAttentionCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gpt_neox_japanese.model.decode.kv_cache import extend
from gpt_neox_japanese.model.decode.linear import linear, sdpa
from gpt_neox_japanese.model.rotary import rotate

__all__ = ["GPTNeoXJapaneseAttention", "eager_attention_forward"]


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Attend step by step: slower than the fused kernels, and the only way to get the weights.

    Scores and softmax are float32 whatever the model's dtype, so that no score overflows, and a
    blocked position is set, not added, to the lowest score, so that nothing leaks through.

    Args:
        module: The attention layer; tells training from inference.
        query: [batch, heads, queries, head_dim].
        key: [batch, heads, keys, head_dim].
        value: As `key`.
        attention_mask: Broadcastable to [batch, heads, queries, keys]: boolean (True = may look)
            or added to the scores, the dtype's lowest value (or -inf) meaning blocked.
        scaling: Factor of the scores.
        dropout: Probability of dropping a weight.
        **_: Arguments of other implementations.

    Returns:
        The mixed values, [batch, queries, heads, head_dim], and the weights, [batch, heads,
        queries, keys], both of the dtype of `value`.
    """
    scores = torch.matmul(query.float(), key.float().transpose(2, 3)) * scaling
    if attention_mask is not None:
        lowest = torch.finfo(scores.dtype).min
        if attention_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attention_mask, lowest)
        else:
            blocked = attention_mask <= torch.finfo(attention_mask.dtype).min
            scores = (scores + attention_mask).masked_fill(blocked, lowest)
    weights = nn.functional.softmax(scores, dim=-1).to(value.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class GPTNeoXJapaneseAttention(nn.Module):
    """Multi-head causal attention with rotary positions and one packed projection."""

    def __init__(self, config: PreTrainedConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_size: int = config.hidden_size // config.num_attention_heads
        self.attention_dropout: float = config.attention_dropout
        self.scaling = self.head_size**-0.5
        self.is_causal = True

        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        # Only the last layer has this bias. It is not `dense.bias`: the checkpoint names it so,
        # and a row-wise split `dense` would otherwise add it once per device.
        is_last = layer_idx == config.num_hidden_layers - 1
        self.dense_bias = nn.Parameter(torch.zeros(config.hidden_size)) if is_last else None

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_embeddings: tuple[Tensor, Tensor],
        cache: Cache | PagedAttentionCache | None = None,
        head_mask: Tensor | None = None,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend to the tokens of this call and of the cache.

        Args:
            hidden_states: [batch, tokens, hidden].
            attention_mask: What the attention implementation in use wants, or None.
            position_embeddings: Cosines and sines, float32 [batch or 1, 1, tokens, R/2].
            cache: Keys and values of earlier tokens, read and extended.
            head_mask: [heads]; 0 silences a head, 1 leaves it.
            output_attentions: Use the eager implementation, the only one that has weights.
            **kwargs: For the attention implementation.

        Returns:
            [batch, tokens, hidden] and the weights [batch, heads, tokens, keys], if there are any.
        """
        batch_and_tokens = hidden_states.shape[:-1]
        # [batch, tokens, heads * 3 * head] -> three of [batch, heads, tokens, head]. The number of
        # heads is left open: a tensor-parallel device holds some of them.
        qkv = linear(self.query_key_value, hidden_states)
        qkv = qkv.view(*batch_and_tokens, -1, 3 * self.head_size)
        query, key, value = qkv.transpose(1, 2).chunk(3, dim=-1)
        query = rotate(query, *position_embeddings)
        key = rotate(key, *position_embeddings)
        if cache is not None:
            key, value = extend(cache, key, value, self.layer_idx, kwargs)

        # Pages have a dtype of their own, and lie apart.
        paged = isinstance(cache, PagedAttentionCache)
        attention_interface: Callable[..., tuple[Tensor, Tensor | None]]
        attention_interface = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        if output_attentions:
            attention_interface = eager_attention_forward
        elif attention_interface is sdpa_attention_forward and not paged:
            attention_interface = sdpa
        attn_out, weights = attention_interface(
            self,
            query,
            key,
            value,
            attention_mask,
            scaling=self.scaling,
            dropout=self.attention_dropout if self.training else 0.0,
            **kwargs,
        )
        if head_mask is not None:  # weights and values mix linearly: scaling after is the same
            attn_out = attn_out * head_mask[:, None]
            weights = weights * head_mask[:, None, None] if weights is not None else None

        output = linear(self.dense, attn_out.reshape(*batch_and_tokens, -1))
        if self.dense_bias is not None:
            output = output + self.dense_bias
        return output, weights
