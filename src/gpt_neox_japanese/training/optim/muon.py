"""Muon's step: momentum, made orthogonal, for the matrices between hidden layers.

torch has this optimizer too, but always multiplies in bfloat16. On a processor without units for
that, one step of a 10 M-parameter model then takes longer than its forward and backward pass.
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from gpt_neox_japanese.training.machine.precision import has_bf16_units

__all__ = ["muon_step", "orthogonalize"]

# Jordan et al. 2024, https://kellerjordan.github.io/posts/muon: the quintic iteration that is
# steepest at zero; it ends with singular values between about 0.7 and 1.2.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


@torch.no_grad()
def muon_step(group: MutableMapping[str, Any], state: MutableMapping[Tensor, Any]) -> None:
    """Update the matrices of a parameter group once.

    Args:
        group: `params` (matrices [rows, columns]), `lr`, `weight_decay`, `momentum`.
        state: Parameter → `{"momentum_buffer": …}`, of the parameter's shape.
    """
    for parameter in group["params"]:
        if parameter.grad is None:
            continue
        memory = state[parameter]
        if "momentum_buffer" not in memory:
            memory["momentum_buffer"] = torch.zeros_like(parameter.grad)
        momentum = memory["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
        update = orthogonalize(parameter.grad.lerp(momentum, group["momentum"]))
        # The size that AdamW's step would have (Liu et al. 2025, arXiv:2502.16982).
        rate = group["lr"] * 0.2 * math.sqrt(max(parameter.shape))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-rate)


def orthogonalize(matrix: Tensor) -> Tensor:
    """Bring the singular values of a matrix near one, by Newton and Schulz's iteration.

    Args:
        matrix: float32 [rows, columns]; may be sharded over processes, which makes this a
            collective.

    Returns:
        A new matrix of the same shape, dtype and sharding.
    """
    if isinstance(matrix, DTensor):
        whole = orthogonalize(matrix.full_tensor())
        mesh, placements = matrix.device_mesh, matrix.placements
        return distribute_tensor(whole, mesh, placements, src_data_rank=None)
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(_fastest(matrix.device))
    x = x / x.norm().clamp(min=1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)


def _fastest(device: torch.device) -> torch.dtype:
    """bfloat16, which is exact enough here, where it is no slower than float32."""
    return torch.bfloat16 if has_bf16_units(device) else torch.float32
