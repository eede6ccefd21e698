"""A step of decoding on a CPU: few rows of activations, and the speed is that of memory.

torch reads bfloat16 weights slower than memory gives them, and converts a cache as a whole for
every token. Here both are read once, by the kernels that the engine has too; the arithmetic is
float32. While a step asks torch for nothing large, its threads sleep and leave the cores to the
kernels.
"""
# Methods of torch carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt_neox_japanese.kernels.attention import attend_last
from gpt_neox_japanese.kernels.parallel_for import parallel_for
from gpt_neox_japanese.quantization import torch_matmul
from gpt_neox_japanese.quantization.formats import Matrix

__all__ = ["attention", "product", "suits_attention", "suits_product"]

_MAX_ROWS = 8  # what the kernels are made for
_SMALLEST = 1 << 20  # elements of a matrix that is worth a call
# Elements of keys that one thread is done with before a second has begun.
_SHARED = 1 << 18


def suits_product(states: Tensor, weight: Tensor) -> bool:
    """Whether `product` is the way to multiply [..., in] by [out, in]."""
    return (
        _plain(states, weight)
        and states.numel() <= _MAX_ROWS * weight.shape[1]
        and type(weight) is nn.Parameter  # not quantised or split over processes
        and weight.is_contiguous()
        and weight.numel() >= _SMALLEST
    )


def product(states: Tensor, weight: Tensor) -> Tensor:
    """Multiply bfloat16 [..., in] by bfloat16 [out, in]."""
    return torch_matmul.product(states, Matrix(weight.detach().view(torch.uint16).numpy()))


def suits_attention(
    query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, dropout: float
) -> bool:
    """Whether `attention` is the way to attend to everything that is in the cache."""
    return (
        attention_mask is None
        and dropout == 0
        and query.shape[2] == 1
        and _plain(query, key, value)
        and all(states.stride()[2:] == (states.shape[3], 1) for states in (key, value))
    )


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend from the last token of every text.

    Args:
        query: bfloat16 [batch, heads, 1, head_dim].
        key: bfloat16 [batch, heads, keys, head_dim]; a head's keys lie together.
        value: As `key`.

    Returns:
        bfloat16 [batch, 1, heads, head_dim].
    """
    batch, heads, _, head_dim = query.shape
    rows = query.float().reshape(batch * heads, head_dim).numpy()
    out = np.empty_like(rows)
    length = key.shape[2]
    kind = np.empty(0, np.uint16)
    work = partial(attend_last, rows, kind, _addresses(key), _addresses(value), length)
    threads = torch.get_num_threads() if key.numel() >= _SHARED else 1
    parallel_for(lambda first, last: work(out, first, last), batch * heads, threads)
    return torch.from_numpy(out).to(query.dtype).view(batch, 1, heads, head_dim)


def _plain(*tensors: Tensor) -> bool:
    """Whether all are bfloat16 in the memory of this machine, and nobody follows what is done."""
    return (
        all(each.dtype == torch.bfloat16 for each in tensors)
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and torch_matmul.is_unobserved(*tensors)
    )


def _addresses(states: Tensor) -> NDArray[np.int64]:
    """Where each head's numbers begin, text by text."""
    (batch, heads), (by_text, by_head) = states.shape[:2], states.stride()[:2]
    numbers = np.arange(batch)[:, None] * by_text + np.arange(heads) * by_head
    addresses: NDArray[np.int64] = states.data_ptr() + numbers.ravel() * states.element_size()
    return addresses
