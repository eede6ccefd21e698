"""The processes of a run under torchrun: how many, which this is, and where they meet."""

from __future__ import annotations

import os

import torch.distributed as dist

__all__ = ["leave_the_others", "processes", "this_process", "wait_for_all"]


def processes() -> int:
    """How many processes torchrun has started for this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def this_process() -> int:
    """Which of them this is, counted from 0."""
    return int(os.environ.get("RANK", "0"))


def wait_for_all() -> None:
    """Return when every process of the run has come here."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()


def leave_the_others() -> None:
    """End the conversation of the processes; nothing can be sent or waited for after it.

    A process that ends without it may be aborted: its network threads still run while the
    interpreter takes down what they use.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
