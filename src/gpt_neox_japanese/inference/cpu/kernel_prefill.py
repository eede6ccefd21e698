"""What surrounds the matrix products of a chunk of tokens; each call does some rows or heads.

Nothing here depends on how the work is shared out.
"""

from __future__ import annotations

import numpy as np

from gpt_neox_japanese.kernels.compile import Floats, Number, entry
from gpt_neox_japanese.kernels.ops import attend, gelu, normalize, rotate, store

__all__ = ["attend_heads", "gelu_rows", "normalize_rows"]


@entry
def normalize_rows(hidden: Floats, norm: Floats, epsilon: Number, out: Floats) -> None:
    """LayerNorm of every row; see `ops.normalize`."""
    for row in range(len(hidden)):
        normalize(hidden[row], norm, epsilon, out[row])


@entry
def gelu_rows(rows: Floats, tanh: bool) -> None:
    """GELU of every row, in place; see `ops.gelu`."""
    for row in range(len(rows)):
        gelu(rows[row], tanh)


@entry
def attend_heads(
    qkv: Floats,
    cos: Floats,
    sin: Floats,
    keys: Number,
    values: Number,
    position: Number,
    attn_out: Floats,
    first: Number,
    last: Number,
) -> None:
    """Store keys and values of some heads, and mix values for every token of a chunk.

    Args:
        qkv: float32 [tokens, heads * 3 * head_dim], as `query_key_value` gives it; rotated in
            place.
        cos: float32 [positions, rotary_dim / 2].
        sin: As `cos`.
        keys: Of one layer and slot, [heads, capacity, head_dim], float32 or bfloat16.
        values: As `keys`.
        position: Of the first token.
        attn_out: float32 [tokens, heads * head_dim].
        first: First head.
        last: Head after the last.
    """
    tokens, head_dim = len(qkv), keys.shape[2]
    scores = np.empty(position + tokens, np.float32)
    for head in range(first, last):
        begin = head * 3 * head_dim
        for token in range(tokens):
            at = position + token
            row = qkv[token, begin : begin + 3 * head_dim]
            rotate(row[:head_dim], cos[at], sin[at])
            rotate(row[head_dim : 2 * head_dim], cos[at], sin[at])
            store(row[head_dim : 2 * head_dim], keys[head, at])
            store(row[2 * head_dim :], values[head, at])
        for token in range(tokens):
            query = qkv[token, begin : begin + head_dim]
            out = attn_out[token, head * head_dim : (head + 1) * head_dim]
            attend(query, keys[head], values[head], position + token + 1, scores, out)
