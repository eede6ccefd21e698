"""Muon's step: momentum, made orthogonal, for the matrices between hidden layers.

torch has this optimizer too, but always multiplies in bfloat16. On a processor without units for
that, one step of a 10 M-parameter model then takes longer than its forward and backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from gpt_neox_japanese.training.machine.precision import has_bf16_units

__all__ = ["muon_step", "orthogonalize"]

# Jordan et al. 2024, https://kellerjordan.github.io/posts/muon: the quintic iteration that is
# steepest at zero; it ends with singular values between about 0.7 and 1.2.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
# So many elements are made orthogonal together: enough for a GPU, and little memory.
_BATCH = 2**24


@torch.no_grad()
def muon_step(group: MutableMapping[str, Any], state: MutableMapping[Tensor, Any]) -> None:
    """Update the matrices of a parameter group once.

    Args:
        group: `params` (matrices [rows, columns]), `lr`, `weight_decay`, `momentum`.
        state: Parameter → `{"momentum_buffer": …}`, of the parameter's shape.
    """
    for parameters in _batches([p for p in group["params"] if p.grad is not None]):
        directions = [_direction(p, state[p], group["momentum"]) for p in parameters]
        if len(directions) == 1:
            updates = [orthogonalize(directions[0])]
        else:
            updates = list(orthogonalize(torch.stack(directions)))
        for parameter, update in zip(parameters, updates, strict=True):
            # The size that AdamW's step would have (Liu et al. 2025, arXiv:2502.16982).
            rate = group["lr"] * 0.2 * math.sqrt(max(parameter.shape))
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update, alpha=-rate)


def _batches(parameters: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Put matrices of one shape together: one by one, small ones leave a GPU idle.

    Yields:
        Matrices of `_BATCH` elements together, or a single one.
    """
    waiting: dict[tuple[int, ...], list[Tensor]] = {}
    for parameter in parameters:
        if isinstance(parameter, DTensor) or 2 * parameter.numel() > _BATCH:
            yield [parameter]
            continue
        batch = waiting.setdefault(tuple(parameter.shape), [])
        batch.append(parameter)
        if (len(batch) + 1) * parameter.numel() > _BATCH:
            yield waiting.pop(tuple(parameter.shape))
    yield from waiting.values()


def _direction(parameter: Tensor, memory: MutableMapping[str, Tensor], momentum: float) -> Tensor:
    """Take the gradient into the momentum, and look ahead as Nesterov does."""
    gradient = cast(Tensor, parameter.grad)
    if "momentum_buffer" not in memory:
        memory["momentum_buffer"] = torch.zeros_like(gradient)
    average = memory["momentum_buffer"].lerp_(gradient, 1 - momentum)
    return gradient.lerp(average, momentum)


def orthogonalize(matrix: Tensor) -> Tensor:
    """Bring the singular values of a matrix near one, by Newton and Schulz's iteration.

    Args:
        matrix: float32 [rows, columns], or several of them, [matrices, rows, columns]. A single one
            may be sharded over processes, which makes this a collective.

    Returns:
        A new tensor of the same shape, dtype and sharding.
    """
    if isinstance(matrix, DTensor):
        whole = orthogonalize(matrix.full_tensor())
        mesh, placements = matrix.device_mesh, matrix.placements
        return distribute_tensor(whole, mesh, placements, src_data_rank=None)
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = (matrix.mT if tall else matrix).to(_fastest(matrix.device))
    x = x.reshape(-1, *x.shape[-2:])
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrix.dtype).reshape(matrix.shape)


def _fastest(device: torch.device) -> torch.dtype:
    """bfloat16, which is exact enough here, where it is no slower than float32."""
    return torch.bfloat16 if has_bf16_units(device) else torch.float32
