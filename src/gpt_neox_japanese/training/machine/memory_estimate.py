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
from gpt_neox_japanese.kernels.constants import GROUP
from gpt_neox_japanese.machine import available_memory
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.quantization.checkpoint_tensors import PREFIX, quantized_modules
from gpt_neox_japanese.training.settings import LORA_TARGETS, RunSettings

__all__ = [
    "SAFE",
    "MemoryEstimate",
    "check_memory",
    "count_weights",
    "current_memory",
    "estimate_memory",
    "free_memory",
    "is_quantized",
    "peak_memory",
    "show_bytes",
]

_WEIGHT, _GRADIENT, _ADAMW, _MUON = 4, 4, 8, 4  # bytes for each number that is trained
# What a layer keeps of a token for the backward pass, in bytes for each channel: of its own, and of
# its MLP for each multiple of the width. Measured; a test compares.
_KEPT = {"fp32": (44, 8), "bf16": (20, 8)}
_KEPT_BETWEEN_LAYERS = 4
_KEPT_OUTSIDE = 16
# Of these, what it keeps of each number that enters a matrix; not with adapters beside another one.
_KEPT_OF_INPUT = {"fp32": 4, "bf16": 2}
_KEPT_BY_DROPOUT = 4  # of each number that enters an adapter
SAFE = 0.7
"""How much of the free memory a run is fitted into; the rest is for what is not counted."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of memory that one process takes.

    Attributes:
        fixed: Weights, gradients and what the optimizer remembers.
        per_window: What is kept of one window for the backward pass.
    """

    fixed: int
    per_window: int


def count_weights(config: GPTNeoXJapaneseConfig) -> int:
    """Count the weights of a model's matrices; all others together are few.

    Args:
        config: The model.
    """
    return sum(_count_by_kind(config))


def is_quantized(config: GPTNeoXJapaneseConfig) -> bool:
    """Tell whether the weights of a model are integers.

    Args:
        config: The model.
    """
    return getattr(config, "quantization_config", None) is not None


def _count_by_kind(config: GPTNeoXJapaneseConfig) -> tuple[int, int]:
    """Weights of the matrices of all layers, and of those at the ends."""
    hidden = config.hidden_size
    layer = sum(inputs * outputs for inputs, outputs in _layer_matrices(config).values())
    ends = config.vocab_size * hidden * (1 if config.tie_word_embeddings else 2)
    return config.num_hidden_layers * layer, ends


def _layer_matrices(config: GPTNeoXJapaneseConfig) -> dict[str, tuple[int, int]]:
    """The matrices of a layer, by the ends of their names: inputs and outputs."""
    hidden, width = config.hidden_size, config.hidden_size * config.intermediate_multiple_size
    shapes = (hidden, 3 * hidden), (hidden, hidden), (hidden, width), (width, hidden)
    return dict(zip(LORA_TARGETS, shapes, strict=True))


def _frozen_bytes(config: GPTNeoXJapaneseConfig, settings: RunSettings) -> int:
    """The weights of a model that only adapters are trained of."""
    shapes = {}
    for layer in range(config.num_hidden_layers):
        for name, (inputs, outputs) in _layer_matrices(config).items():
            parent = "attention" if name in ("query_key_value", "dense") else "mlp"
            shapes[f"{PREFIX}layers.{layer}.{parent}.{name}"] = inputs, outputs
    shapes[f"{PREFIX}embed_in"] = config.hidden_size, config.vocab_size
    if not config.tie_word_embeddings:
        shapes["embed_out"] = config.hidden_size, config.vocab_size
    bits, others = (
        quantized_modules(config.to_dict()),
        16 if settings.frozen_dtype == "bf16" else 32,
    )
    return sum(_stored_bytes(bits.get(name, others), *shape) for name, shape in shapes.items())


def _stored_bytes(bits: int, inputs: int, outputs: int) -> int:
    """What a matrix takes with its scales: one for a row of int8, one for a group of int4."""
    scales = {8: 4, 4: 2 * inputs // GROUP}.get(bits, 0)
    return outputs * (inputs * bits // 8 + scales)


def free_memory() -> int:
    """Measure how much memory each process of this machine may take: of its GPU, if it has one.

    Returns:
        Bytes.
    """
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return available_memory() // _number("LOCAL_WORLD_SIZE")


def estimate_memory(config: GPTNeoXJapaneseConfig, settings: RunSettings) -> MemoryEstimate:
    """Count what training a model takes of the memory of one process.

    Args:
        config: The model.
        settings: How it is trained.

    Returns:
        Bytes, of what is there once and of what each window adds.
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    multiple = config.intermediate_multiple_size
    matrices, ends = _count_by_kind(config)
    average = _WEIGHT if settings.ema else 0
    shapes = _layer_matrices(config)
    adapted = [shapes[name] for name in settings.lora_target or LORA_TARGETS[:1]]
    if settings.lora_rank:
        fixed = _frozen_bytes(config, settings)
        trained = layers * settings.lora_rank * sum(map(sum, adapted))
        fixed += trained * (_WEIGHT + _GRADIENT + _ADAMW + average)
    else:
        fixed = (matrices + ends) * (_WEIGHT + _GRADIENT + average) + ends * _ADAMW
        fixed += matrices * (_MUON if settings.uses_muon else _ADAMW)
    if settings.shard:
        fixed //= _number("WORLD_SIZE")

    own, of_width = _KEPT[settings.dtype]
    layer = (own + of_width * multiple) * hidden
    if settings.lora_rank:
        entering = sum(inputs for inputs, _ in adapted)
        every = sum(inputs for inputs, _ in shapes.values())
        layer -= _KEPT_OF_INPUT[settings.dtype] * (every - entering)
        layer += _KEPT_BY_DROPOUT * entering if settings.lora_dropout else 0
    kept = layers * layer
    if settings.gradient_checkpointing:
        kept = layers * _KEPT_BETWEEN_LAYERS * hidden + layer
    return MemoryEstimate(fixed, settings.sequence_length * (kept + _KEPT_OUTSIDE * hidden))


def check_memory(config: GPTNeoXJapaneseConfig, settings: RunSettings) -> None:
    """Make sure that a step has a chance to fit into the memory of the device.

    What fits barely is warned of on standard error.

    Args:
        config: The model.
        settings: How it is trained.

    Raises:
        ArgumentError: It does not; the message says what would.
    """
    free = free_memory()
    where = "on the GPU" if torch.cuda.is_available() else "for each process"
    size = estimate_memory(config, settings)
    whole = size.fixed + settings.batch_size * size.per_window
    if whole <= free:
        if whole > free * SAFE:
            print(
                f"a step needs at least {show_bytes(whole)} of memory, {show_bytes(free)} are free "
                f"{where}",
                file=sys.stderr,
            )
        return
    raise ArgumentError(
        f"a step needs at least {show_bytes(whole)} of memory ({show_bytes(size.fixed)} for "
        f"weights, gradients and optimizer, {show_bytes(size.per_window)} for each of "
        f"--batch-size {settings.batch_size} windows), and {show_bytes(free)} are free {where}; "
        f"{_remedy(size, free, settings)}"
    )


def _remedy(size: MemoryEstimate, free: int, settings: RunSettings) -> str:
    if size.fixed >= free:
        return "train a smaller model, or adapters (--lora-rank), or shard it over GPUs (--shard)"
    windows = int((free - size.fixed) * SAFE) // max(size.per_window, 1)
    if windows:
        passes = -(-settings.batch_size * settings.gradient_accumulation // windows)
        return f"use --batch-size {windows} --gradient-accumulation {passes}"
    if settings.gradient_checkpointing:
        return "use a smaller --sequence-length"
    return "use --batch-size 1 --gradient-checkpointing, or a smaller --sequence-length"


def _number(variable: str) -> int:
    """One of the numbers that torchrun tells its processes."""
    return int(os.environ.get(variable, "1"))


def current_memory() -> int:
    """Tell how many bytes of the machine's memory this process holds."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def peak_memory() -> int:
    """Tell how many bytes this process, or its GPU, has held at most."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return max(current_memory(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def show_bytes(size: int) -> str:
    """A number of bytes as people read it.

    Args:
        size: Bytes.
    """
    return f"{size / 1e9:,.1f} GB" if size >= 10**8 else f"{size / 1e6:,.1f} MB"
