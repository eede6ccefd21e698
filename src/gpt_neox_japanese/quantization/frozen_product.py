"""The product with a stored matrix that is not trained, and its gradient.

Adapters are trained beside such matrices: the gradient goes through the product to the activations.
Forward the kernels multiply; backward the weights are dequantized a block at a time, so that a
whole matrix of floats is never in memory. The kernels round activations to 12 bits, and the
gradient is that of the product without the rounding.
"""
# Methods of torch carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gpt_neox_japanese.kernels.constants import GROUP
from gpt_neox_japanese.quantization.formats import Matrix
from gpt_neox_japanese.quantization.torch_matmul import can_bypass_torch, matmul_tensor

__all__ = ["dequantize_tensor", "frozen_product", "stored_arrays"]

_BLOCK_ROWS = 1024


def frozen_product(states: Tensor, weight: Tensor, scale: Tensor | None) -> Tensor:
    """Multiply activations by a transposed matrix that has no gradient of its own.

    Args:
        states: [..., columns], any floating dtype.
        weight: As `formats` stores it, [outputs, columns] (int4: [outputs, columns / 2]).
        scale: As `formats` stores it; None for bfloat16.

    Returns:
        [..., outputs] in the dtype of `states`.
    """
    with torch.autocast(states.device.type, enabled=False):
        product: Tensor = _FrozenProduct.apply(states, weight, scale)
    return product


class _FrozenProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, scale: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, scale)  # not the activations: only the matrix's own
        if can_bypass_torch(states, weight):  # gradient would need them
            return matmul_tensor(states, stored_arrays(weight, scale))
        blocks = _blocks(weight, scale)
        return torch.cat([functional.linear(states, b.to(states.dtype)) for b in blocks], dim=-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None, None
        # Processors without units for half precision would take five times as long.
        dtype = torch.float32 if gradient.device.type == "cpu" else gradient.dtype
        total: Any = 0
        parts = gradient.to(dtype).split(_BLOCK_ROWS, dim=-1)
        for part, block in zip(parts, _blocks(*ctx.saved_tensors), strict=True):
            total = total + part @ block.to(dtype)
        return total.to(gradient.dtype), None, None


def _blocks(weight: Tensor, scale: Tensor | None) -> Iterator[Tensor]:
    for first in range(0, len(weight), _BLOCK_ROWS):
        rows = slice(first, first + _BLOCK_ROWS)
        yield dequantize_tensor(weight[rows], None if scale is None else scale[rows])


def dequantize_tensor(weight: Tensor, scale: Tensor | None) -> Tensor:
    """Make floats of stored weights, on any device; `formats` says the same in NumPy.

    Args:
        weight: bfloat16 or int8 [outputs, columns], or int4 as uint8 [outputs, columns / 2].
        scale: float32 [outputs] for int8, bfloat16 [outputs, columns / GROUP] for int4.

    Returns:
        float32 [outputs, columns].
    """
    if scale is None:
        return weight.float()
    if weight.dtype == torch.int8:
        return weight.float() * scale.float()[:, None]
    # Byte 2 i holds columns i and 16 + i of its group, byte 2 i + 1 columns 32 + i and 48 + i.
    pairs = weight.view(len(weight), -1, GROUP // 4, 2)
    nibbles = torch.stack([pairs & 15, pairs >> 4], dim=-1)  # (outputs, groups, 16, 2, 2)
    values = nibbles.permute(0, 1, 3, 4, 2).reshape(*pairs.shape[:2], GROUP).float() - 8
    return (values * scale.float()[..., None]).flatten(1)


def stored_arrays(weight: Tensor, scale: Tensor | None) -> Matrix:
    """View a stored matrix as NumPy's arrays, without a copy.

    Args:
        weight: As of `dequantize_tensor`, on the CPU.
        scale: The same.

    Returns:
        The matrix.
    """
    return Matrix(_array(weight), None if scale is None else _array(scale))


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
