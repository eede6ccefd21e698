"""A decode step on a CPU: few rows of activations, so memory bandwidth decides the speed.

torch reads bfloat16 weights slower than memory delivers them, and converts the whole KV cache for
every token. Here both are read once, by the kernels that the engine uses too; the arithmetic is
float32. While a step asks torch for nothing large, torch's threads sleep and leave the cores to the
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

from gpt_neox_japanese.kernels.parallel_for import parallel_for
from gpt_neox_japanese.quantization import torch_matmul
from gpt_neox_japanese.quantization.formats import Matrix

__all__ = ["can_use_decode_attention", "can_use_gemv", "decode_attention", "gemv"]

_MAX_ROWS = 8  # torch multiplies more as fast
_MIN_WEIGHT_ELEMENTS = 1 << 20  # a smaller matrix is not worth a call
# With fewer elements of keys, one thread is done before a second has begun.
_MIN_KEY_ELEMENTS_FOR_THREADS = 1 << 18


def can_use_gemv(states: Tensor, weight: Tensor) -> bool:
    """Whether `gemv` can multiply, and faster than torch.

    Args:
        states: [..., in].
        weight: [out, in].

    Returns:
        True for at most eight rows of bfloat16 and a large bfloat16 weight, both on the
        CPU, while neither autograd nor anything else observes torch's operations.
    """
    return (
        _are_unobserved_bfloat16(states, weight)
        and states.numel() <= _MAX_ROWS * weight.shape[1]
        and type(weight) is nn.Parameter  # not quantised or split over processes
        and weight.is_contiguous()
        and weight.numel() >= _MIN_WEIGHT_ELEMENTS
    )


def gemv(states: Tensor, weight: Tensor) -> Tensor:
    """Multiply a few rows by a transposed weight; `can_use_gemv` says when.

    Args:
        states: bfloat16 [..., in].
        weight: bfloat16 [out, in].

    Returns:
        bfloat16 [..., out]; the arithmetic is float32.
    """
    return torch_matmul.matmul_tensor(states, Matrix(weight.detach().view(torch.uint16).numpy()))


def can_use_decode_attention(
    query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, dropout: float
) -> bool:
    """Whether `decode_attention` can attend to the whole cache, and faster than torch.

    Args:
        query: [batch, heads, queries, head_dim].
        key: [batch, heads, keys, head_dim].
        value: As `key`.
        attention_mask: Broadcastable to [batch, heads, queries, keys], or None.
        dropout: Probability of dropping a weight.

    Returns:
        True for one query of each text, bfloat16 on the CPU, without a mask and dropout, while
        neither autograd nor anything else observes torch's operations.
    """
    return (
        attention_mask is None
        and dropout == 0
        and query.shape[2] == 1
        and _are_unobserved_bfloat16(query, key, value)
        and all(states.stride()[2:] == (states.shape[3], 1) for states in (key, value))
    )


def decode_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend from the last token of every text; `can_use_decode_attention` says when.

    Args:
        query: bfloat16 [batch, heads, 1, head_dim].
        key: bfloat16 [batch, heads, keys, head_dim]; a head's keys lie together.
        value: As `key`.

    Returns:
        bfloat16 [batch, 1, heads, head_dim].
    """
    from gpt_neox_japanese.kernels.ops import attend_last  # Numba, which a model may never need

    batch, heads, _, head_dim = query.shape
    rows = query.float().reshape(batch * heads, head_dim).numpy()
    out = np.empty_like(rows)
    length = key.shape[2]
    kind = np.empty(0, np.uint16)
    work = partial(attend_last, rows, kind, _head_addresses(key), _head_addresses(value), length)
    threads = torch.get_num_threads() if key.numel() >= _MIN_KEY_ELEMENTS_FOR_THREADS else 1
    parallel_for(lambda first, last: work(out, first, last), batch * heads, threads)
    return torch.from_numpy(out).to(query.dtype).view(batch, 1, heads, head_dim)


def _are_unobserved_bfloat16(*tensors: Tensor) -> bool:
    """Whether all are bfloat16 on the CPU, and nothing observes torch's operations on them."""
    return (
        all(each.dtype == torch.bfloat16 for each in tensors)
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and torch_matmul.can_bypass_torch(*tensors)
    )


def _head_addresses(states: Tensor) -> NDArray[np.int64]:
    """Where each head's keys or values begin, int64 [batch * heads], in bytes."""
    (batch, heads), (by_text, by_head) = states.shape[:2], states.stride()[:2]
    numbers = np.arange(batch)[:, None] * by_text + np.arange(heads) * by_head
    addresses: NDArray[np.int64] = states.data_ptr() + numbers.ravel() * states.element_size()
    return addresses
