"""How much memory a step of training takes, by count, and whether there is as much.

Without it, too large a batch ends after minutes in which the machine swaps, or with the system
killing the process. The count leaves out what comes and goes within a layer, so what does not fit
by it does not fit, and what barely fits may not.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

import torch

from gpt_neox_japanese.errors import ArgumentError
from gpt_neox_japanese.machine import available_memory
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.training.settings import Settings

__all__ = ["MemoryEstimate", "check_memory", "estimate_memory"]

_WEIGHT, _GRADIENT, _ADAMW, _MUON = 4, 4, 8, 4  # bytes for each number that is trained
# What a layer keeps of a token for the backward pass, in bytes for each channel: of its own, and of
# its MLP for each multiple of the width. Measured; a test compares.
_KEPT = {"fp32": (44, 8), "bf16": (20, 8)}
_KEPT_BETWEEN_LAYERS = 4
_KEPT_OUTSIDE = 16
# With adapters the inputs of frozen matrices are not kept.
_KEPT_WITH_ADAPTERS = 0.5
# Of what is free; the rest is for what is not counted.
_SAFE = 0.7


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of memory that one process takes.

    Attributes:
        fixed: Weights, gradients and what the optimizer remembers.
        per_window: What is kept of one window for the backward pass.
    """

    fixed: int
    per_window: int


def estimate_memory(config: GPTNeoXJapaneseConfig, settings: Settings) -> MemoryEstimate:
    """Count what training a model takes of the memory of one process.

    Args:
        config: The model.
        settings: How it is trained.

    Returns:
        Bytes, of what is there once and of what each window adds.
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    multiple = config.intermediate_multiple_size
    matrices = layers * (4 + 2 * multiple) * hidden**2
    ends = config.vocab_size * hidden * (1 if config.tie_word_embeddings else 2)
    fixed = (matrices + ends) * _WEIGHT
    if settings.lora_rank:
        fixed += layers * 4 * hidden * settings.lora_rank * (_WEIGHT + _GRADIENT + _ADAMW)
    else:
        fixed += (matrices + ends) * _GRADIENT + ends * _ADAMW
        fixed += matrices * (_MUON if settings.uses_muon else _ADAMW)
    if settings.shard:
        fixed //= _number("WORLD_SIZE")

    own, of_width = _KEPT[settings.dtype]
    layer = (own + of_width * multiple) * hidden
    if settings.lora_rank:
        layer = int(layer * _KEPT_WITH_ADAPTERS)
    kept = layers * layer
    if settings.gradient_checkpointing:
        kept = layers * _KEPT_BETWEEN_LAYERS * hidden + layer
    return MemoryEstimate(fixed, settings.sequence_length * (kept + _KEPT_OUTSIDE * hidden))


def check_memory(config: GPTNeoXJapaneseConfig, settings: Settings) -> None:
    """Make sure that a step has a chance to fit into the memory of the device.

    What fits barely is warned of on standard error.

    Args:
        config: The model.
        settings: How it is trained.

    Raises:
        ArgumentError: It does not; the message says what would.
    """
    if torch.cuda.is_available():
        free, where = torch.cuda.mem_get_info()[0], "on the GPU"
    else:
        free, where = available_memory() // _number("LOCAL_WORLD_SIZE"), "for each process"
    size = estimate_memory(config, settings)
    whole = size.fixed + settings.batch_size * size.per_window
    if whole <= free:
        if whole > free * _SAFE:
            print(
                f"a step needs at least {_gigabytes(whole)} of memory, {_gigabytes(free)} are free "
                f"{where}",
                file=sys.stderr,
            )
        return
    raise ArgumentError(
        f"a step needs at least {_gigabytes(whole)} of memory ({_gigabytes(size.fixed)} for "
        f"weights, gradients and optimizer, {_gigabytes(size.per_window)} for each of "
        f"--batch-size {settings.batch_size} windows), and {_gigabytes(free)} are free {where}; "
        f"{_remedy(size, free, settings)}"
    )


def _remedy(size: MemoryEstimate, free: int, settings: Settings) -> str:
    if size.fixed >= free:
        return "train a smaller model, or adapters (--lora-rank), or shard it over GPUs (--shard)"
    windows = int((free - size.fixed) * _SAFE) // max(size.per_window, 1)
    if windows:
        passes = -(-settings.batch_size * settings.gradient_accumulation // windows)
        return f"use --batch-size {windows} --gradient-accumulation {passes}"
    if settings.gradient_checkpointing:
        return "use a smaller --sequence-length"
    return "use --batch-size 1 --gradient-checkpointing, or a smaller --sequence-length"


def _number(variable: str) -> int:
    """One of the numbers that torchrun tells its processes."""
    return int(os.environ.get(variable, "1"))


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 10**8 else f"{size / 1e6:,.1f} MB"
