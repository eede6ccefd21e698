"""The processes of a run under torchrun: how many, which this is, and their barrier."""

from __future__ import annotations

import os
from typing import TypeVar

import torch
import torch.distributed as dist

__all__ = ["agree", "barrier", "destroy_process_group", "rank", "world_size"]

_Value = TypeVar("_Value")


def world_size() -> int:
    """How many processes torchrun has started for this run; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is, counted from 0."""
    return int(os.environ.get("RANK", "0"))


def agree(value: _Value) -> _Value:
    """Give every process what the first one has; a collective.

    Args:
        value: Can be pickled.

    Returns:
        The first process's value.
    """
    if world_size() == 1:
        return value
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available())  # makes the process group if there is none
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def barrier() -> None:
    """Return when every process of the run has come here; at once if there is only one."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()


def destroy_process_group() -> None:
    """Destroy the process group, if there is one; no collective can follow.

    A process that ends without it may be aborted: its network threads still run while the
    interpreter takes down what they use.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
