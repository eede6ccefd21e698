"""The model as one would write it on paper, in float64: the judge where transformers is wrong.

One text at a time, no batch, no mask, no cache, nothing shared with the package but the weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import PreTrainedConfig

__all__ = ["forward"]


def forward(weights: dict[str, Tensor], config: PreTrainedConfig, ids: list[int]) -> Tensor:
    """The logits, float64 [tokens, vocab], of one text.

    Args:
        weights: The state dict, any dtype.
        config: Of the model.
        ids: The text.
    """
    w = {name.removeprefix("gpt_neox_japanese."): t.double() for name, t in weights.items()}
    hidden = w["embed_in.weight"][torch.tensor(ids)]
    for i in range(config.num_hidden_layers):
        layer = {n.removeprefix(f"layers.{i}."): t for n, t in w.items() if f"layers.{i}." in n}
        attended = attention(layer, config, norm(layer, "input_layernorm", hidden, config))
        hidden = hidden + attended
        wide = norm(layer, "post_attention_layernorm", hidden, config)
        wide = wide @ layer["mlp.dense_h_to_4h.weight"].T
        wide = wide * 0.5 * (1 + torch.erf(wide / math.sqrt(2)))
        hidden = hidden + wide @ layer["mlp.dense_4h_to_h.weight"].T
    return norm(w, "final_layer_norm", hidden, config) @ w["embed_out.weight"].T


def norm(weights: dict[str, Tensor], name: str, x: Tensor, config: PreTrainedConfig) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    deviation = (centred.pow(2).mean(-1, keepdim=True) + config.layer_norm_eps).sqrt()
    return centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attention(weights: dict[str, Tensor], config: PreTrainedConfig, x: Tensor) -> Tensor:
    tokens, width = x.shape
    size = width // config.num_attention_heads
    packed = x @ weights["attention.query_key_value.weight"].T
    mixed = torch.empty_like(x)
    future = torch.ones(tokens, tokens).triu(1).bool()
    for head in range(config.num_attention_heads):
        start = head * 3 * size
        query, key, value = (packed[:, start + j * size : start + (j + 1) * size] for j in range(3))
        scores = turned(query, config) @ turned(key, config).T / math.sqrt(size)
        weight = scores.masked_fill(future, -math.inf).softmax(-1)
        mixed[:, head * size : (head + 1) * size] = weight @ value
    output = mixed @ weights["attention.dense.weight"].T
    return output + weights.get("attention.dense_bias", 0.0)


def turned(x: Tensor, config: PreTrainedConfig) -> Tensor:
    """Channels i and i + R/2 of [tokens, size], turned by position / base^(2i/R) radians."""
    rotated = int(x.shape[1] * config.rotary_pct)
    half = rotated // 2
    frequencies = config.rotary_emb_base ** (-2 * torch.arange(half).double() / rotated)
    angles = torch.arange(len(x)).double()[:, None] * frequencies
    points = torch.complex(x[:, :half], x[:, half:rotated])
    points = points * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([points.real, points.imag, x[:, rotated:]], dim=1)
