"""Attention of one new token of each text over a cache that lies in memory as torch keeps it."""

from __future__ import annotations

import numpy as np

from gpt_neox_japanese.kernels.bfloat16 import matrix_at
from gpt_neox_japanese.kernels.compile import Floats, Longs, Number, entry
from gpt_neox_japanese.kernels.ops import attend

__all__ = ["attend_last"]


@entry
def attend_last(
    query: Floats,
    kind: Number,
    keys: Longs,
    values: Longs,
    length: Number,
    out: Floats,
    first: Number,
    last: Number,
) -> None:
    """Attend with some heads: weights from the scores of all keys, and the values mixed by them.

    Args:
        query: float32 [heads, head_dim], of all texts.
        kind: Empty; its dtype says how the cache is stored, float32 or bfloat16 as uint16.
        keys: int64 [heads], the address of each head's [length, head_dim].
        values: As `keys`.
        length: Tokens of the cache.
        out: float32 [heads, head_dim], of which rows `first` to `last` are written.
        first: First head.
        last: Head after the last.
    """
    head_dim = query.shape[1]
    scores = np.empty(length, np.float32)
    for head in range(first, last):
        key = matrix_at(keys[head], length, head_dim, kind)
        value = matrix_at(values[head], length, head_dim, kind)
        attend(query[head], key, value, length, scores, out[head])
