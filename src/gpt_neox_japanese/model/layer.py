"""One transformer layer: attention, then an MLP, each added to the residual stream."""
# Methods of transformers and torch carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from gpt_neox_japanese.model.attention import GPTNeoXJapaneseAttention
from gpt_neox_japanese.model.decode.linear import linear

__all__ = ["GPTNeoXJapaneseLayer", "GPTNeoXJapaneseMLP"]


class GPTNeoXJapaneseMLP(nn.Module):
    """Up-projection, activation, down-projection; no biases."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        width = config.hidden_size * config.intermediate_multiple_size
        self.dense_h_to_4h = nn.Linear(config.hidden_size, width, bias=False)
        self.dense_4h_to_h = nn.Linear(width, config.hidden_size, bias=False)
        self.act = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Apply the MLP.

        Args:
            hidden_states: [batch, tokens, hidden].

        Returns:
            The same shape and dtype.
        """
        return linear(self.dense_4h_to_h, self.act(linear(self.dense_h_to_4h, hidden_states)))


class GPTNeoXJapaneseLayer(GradientCheckpointingLayer):
    """`h = x + attention(norm(x))`, then `h + mlp(norm(h))`: sequential, unlike GPT-NeoX's own."""

    def __init__(self, config: PreTrainedConfig, layer_idx: int) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.layer_norm_eps
        self.input_layernorm = nn.LayerNorm(hidden, eps=eps)
        self.post_attention_layernorm = nn.LayerNorm(hidden, eps=eps)
        self.attention = GPTNeoXJapaneseAttention(config, layer_idx)
        self.mlp = GPTNeoXJapaneseMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """Apply the layer.

        Args:
            hidden_states: [batch, tokens, hidden].
            **kwargs: Arguments of `GPTNeoXJapaneseAttention.forward`.

        Returns:
            The same shape and dtype.
        """
        attended, _ = self.attention(self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + self.dropout(attended)
        transformed = self.mlp(self.post_attention_layernorm(hidden_states))
        output: Tensor = hidden_states + self.dropout(transformed)
        return output
