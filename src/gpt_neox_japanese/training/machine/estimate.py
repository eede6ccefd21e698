"""What a run will take, told before its first step: time, memory, disk."""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gpt_neox_japanese.quantization.hf_modules import parameter_sizes
from gpt_neox_japanese.training.machine.memory_estimate import (
    current_memory,
    estimate_memory,
    free_memory,
    show_bytes,
)
from gpt_neox_japanese.training.optim.muon import orthogonalize
from gpt_neox_japanese.training.optim.optimizer import hidden_matrices
from gpt_neox_japanese.training.report.mfu import MfuMeter
from gpt_neox_japanese.training.settings import RunSettings

__all__ = ["RunEstimate", "estimate_run", "show_seconds"]

# Operations of a trial on the processor: a fraction of a second to a few seconds.
_TRIAL_FLOPS = 2e10
# Of a matrix that Muon's step is tried on: a tenth of a second.
_TRIAL_CHANNELS = 512
# What an H100 reached of its products in training 310 M parameters.
_USUAL_MFU = 0.23
# AdamW's step, and what is logged and saved, on top of the passes.
_OVERHEAD = 1.1
_RECOMPUTING = 4 / 3
_CHECKPOINTS = 3  # two are kept, and one is being written


@dataclass(frozen=True)
class RunEstimate:
    """What a run will take.

    Attributes:
        tokens_per_second: Of all processes together.
        seconds: Of the steps that are left, measurements included.
        memory: Bytes of one process, at the least.
        free_memory: Bytes that it may take.
        disk: Bytes that the run's directory grows to.
        free_disk: Bytes that are free there.
    """

    tokens_per_second: float
    seconds: float
    memory: int
    free_memory: int
    disk: int
    free_disk: int

    def __str__(self) -> str:
        short = "" if self.disk < self.free_disk else ", which is too little"
        return (
            f"about {show_seconds(self.seconds)} at {self.tokens_per_second:,.0f} tokens/s; "
            f"at least {show_bytes(self.memory)} of memory ({show_bytes(self.free_memory)} free); "
            f"{show_bytes(self.disk)} on disk ({show_bytes(self.free_disk)} free{short})"
        )


def estimate_run(
    model: Any,
    settings: RunSettings,
    output: Path,
    meter: MfuMeter,
    flops: float,
    *,
    steps: int,
    processes: int,
    held_out_tokens: int,
) -> RunEstimate:
    """Estimate what a run takes.

    On a processor a few tokens are passed through the model and back, in every process at once; on
    a GPU the speed of its products is taken.

    Args:
        model: What is trained, on the processor; it is left as it was.
        settings: How.
        output: The run's directory; the first process makes it.
        meter: Of the device.
        flops: Operations of one token.
        steps: How many are to be done.
        processes: How many train together.
        held_out_tokens: Of a measurement.

    Returns:
        The estimate.
    """
    absolute = output.absolute()
    existing = next(folder for folder in (absolute, *absolute.parents) if folder.is_dir())
    size = estimate_memory(model.config, settings)
    memory = size.fixed + settings.batch_size * size.per_window
    if not torch.cuda.is_available():  # the weights are there already, and the program itself
        memory += current_memory() - sum(p.nbytes for p in model.parameters())
    if torch.cuda.is_available():
        speed = _USUAL_MFU * meter.peak_flops() / flops
    else:
        speed = _trial(model, settings, flops)
    if settings.gradient_checkpointing:
        speed /= _RECOMPUTING
    speed *= processes / _OVERHEAD
    passes = settings.batch_size * settings.gradient_accumulation * processes
    tokens = passes * settings.sequence_length
    step = tokens / speed
    if settings.uses_muon and not torch.cuda.is_available():
        step += _muon_seconds(model)
    measurements = (1 + steps / settings.eval_every) * held_out_tokens
    # Half of each window is read again as context, and a pass forward is a third of a step.
    return RunEstimate(
        tokens_per_second=tokens / step,
        seconds=steps * step + measurements * 2 / 3 / speed,
        memory=memory,
        free_memory=free_memory(),
        disk=_disk(model, settings),
        free_disk=shutil.disk_usage(existing).free,
    )


def _trial(model: Any, settings: RunSettings, flops: float) -> float:
    """Tokens per second of a pass forward and back, on the processor."""
    affordable = max(_TRIAL_FLOPS / flops, 16)
    length = int(min(affordable, settings.sequence_length))
    rows = int(min(max(affordable // length, 1), settings.batch_size))
    ids = torch.zeros(rows, length, dtype=torch.long)
    was_training = model.training

    def work() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.dtype == "bf16"):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()

    with torch.random.fork_rng([]):
        model.train()
        seconds = _seconds(work)
        model.zero_grad(set_to_none=True)
        model.train(was_training)
    return rows * length / seconds


def _muon_seconds(model: Any) -> float:
    """Seconds of Muon's step on the processor, by a matrix of each shape, or a smaller one."""
    seconds = 0.0
    for shape, count in Counter(tuple(p.shape) for p in hidden_matrices(model)).items():
        shrink = max(1.0, math.sqrt(math.prod(shape)) / _TRIAL_CHANNELS)
        matrix = torch.ones([math.ceil(size / shrink) for size in shape])
        seconds += count * shrink**3 * _seconds(partial(orthogonalize, matrix))
    return seconds


def _seconds(work: Callable[[], object]) -> float:
    """The shorter time of two: the first one finds memory and kernels."""
    best = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def _disk(model: Any, settings: RunSettings) -> int:
    trained = _count(p for p in model.parameters() if p.requires_grad)
    whole = sum(size for _, size in parameter_sizes(model))
    hidden = _count(hidden_matrices(model))
    momentum = 4 * hidden if settings.uses_muon else 8 * hidden
    checkpoint = 4 * trained * (2 if settings.ema else 1) + momentum + 8 * (trained - hidden)
    stored = 2 if settings.save_dtype == "bf16" else 4
    model_files = stored * (trained + (whole if settings.merge else 0))
    return _CHECKPOINTS * checkpoint + 2 * model_files


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def show_seconds(seconds: float) -> str:
    """A time as people read it: 40 s, 12 min, 3 h 20 min, 2 days 5 h.

    Args:
        seconds: Zero or more.
    """
    minutes, hours = seconds / 60, seconds / 3600
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes:.0f} min"
    if hours < 36:
        return f"{int(hours)} h {int(minutes) % 60} min"
    return f"{int(hours // 24)} days {int(hours) % 24} h"
