"""Tensors that may be sharded over processes (FSDP2): gathered whole, and sharded again.

Gathering a tensor is a collective: every process calls these functions, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

__all__ = [
    "gather_optimizer",
    "gather_parameters",
    "restore_optimizer",
    "restore_parameters",
    "shard_again",
]


def gather_parameters(parameters: Iterable[tuple[str, nn.Parameter]]) -> dict[str, Tensor]:
    """Gather the parameters that are trained.

    Args:
        parameters: `named_parameters()` of the model.

    Returns:
        Parameter → its whole tensor, of its own shape and dtype, in the memory of the CPU.
    """
    return {name: _whole(parameter) for name, parameter in parameters if parameter.requires_grad}


def restore_parameters(
    parameters: Iterable[tuple[str, nn.Parameter]], weights: Mapping[str, Tensor]
) -> None:
    """Give the parameters that are trained their values.

    Args:
        parameters: `named_parameters()` of the model.
        weights: What `gather_parameters` gave; its names and shapes are believed.
    """
    with torch.no_grad():
        for name, parameter in parameters:
            if parameter.requires_grad:
                parameter.copy_(_like(weights[name], parameter))


def shard_again(model: nn.Module) -> None:
    """Let go of what forward passes have gathered that no backward pass follows.

    Until then the model has other parameters than its optimizer, and computes with their values
    whatever becomes of the shards.

    Args:
        model: Sharded or not.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def gather_optimizer(
    optimizer: Optimizer, parameters: Iterable[tuple[str, nn.Parameter]]
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Gather what an optimizer remembers.

    Args:
        optimizer: After at least one step.
        parameters: `named_parameters()` of the model.

    Returns:
        `<parameter>/<name>` → whole tensor in the memory of the CPU, scalars such as the count of
        steps included; and the parameter groups without their parameters, as JSON values.
    """
    names = {id(parameter): name for name, parameter in parameters}
    tensors = {}
    groups = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{names[id(parameter)]}/{key}"] = _whole(value)
        groups.append({key: value for key, value in group.items() if key != "params"})
    return tensors, groups


def restore_optimizer(
    optimizer: Optimizer,
    parameters: Iterable[tuple[str, nn.Parameter]],
    tensors: Mapping[str, Tensor],
    groups: Iterable[Mapping[str, Any]],
) -> None:
    """Undo `gather_optimizer`, for an optimizer with the same groups.

    Args:
        optimizer: Gets the state.
        parameters: `named_parameters()` of the model.
        tensors: The tensors that `gather_optimizer` gave; their names and shapes are believed.
        groups: The groups that it gave, as many as there are. Only their learning rates change
            during a run; for the rest the optimizer's own values stand.
    """
    by_name = dict(parameters)
    for group, saved in zip(optimizer.param_groups, groups, strict=True):
        group["lr"] = saved["lr"]
    for key, value in tensors.items():
        name, _, what = key.rpartition("/")
        parameter = by_name[name]
        # Scalars stay where torch makes them; fused AdamW wants its count beside the parameter.
        like = _like(value, parameter) if value.shape == parameter.shape else value
        fused = value.ndim == 0 and parameter.is_cuda
        optimizer.state[parameter][what] = like.to(parameter.device) if fused else like.clone()


def _whole(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu().contiguous()


def _like(whole: Tensor, parameter: Tensor) -> Tensor:
    if isinstance(parameter, DTensor):
        whole = whole.to(parameter.device)
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements)
    return whole.to(parameter.device)
