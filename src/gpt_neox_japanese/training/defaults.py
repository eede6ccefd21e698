"""What a run is trained with where its settings leave that open.

A run has one of three modes: a new model (`scratch`), a trained one of which all weights are
trained on (`full`), or of which adapters are (`lora`). Why these values: docs/decisions/training/
defaults.md.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch

from gpt_neox_japanese.errors import ArgumentError
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.training.distributed import rank
from gpt_neox_japanese.training.machine.memory_estimate import (
    SAFE,
    count_weights,
    estimate_memory,
    is_quantized,
)
from gpt_neox_japanese.training.machine.precision import has_bf16_units
from gpt_neox_japanese.training.settings import Architecture, RunSettings, Settings

__all__ = ["Mode", "RunFacts", "complete_settings", "mode_of"]

Mode = Literal["scratch", "full", "lora"]

_WINDOW = 512

# The peak rate of a new model with 7 million weights, and how it falls with their number: towards
# the 1.6e-4 of GPT-3's 2.7 billion (Brown et al. 2020, table 2.1).
_RATE, _RATE_WEIGHTS, _RATE_POWER = 3e-3, 7e6, 0.4
_RATE_RANGE = (2e-4, 6e-3)
_RATE_OF_MODE: Mapping[Mode, float] = {"scratch": 1.0, "full": 1 / 15, "lora": 1 / 3}

_WARMUP: Mapping[Mode, float] = {"scratch": 0.02, "full": 0.05, "lora": 0.05}
_DECAY: Mapping[Mode, float] = {"scratch": 0.2, "full": 0.5, "lora": 0.5}

# The length of a run that does not say: passes over the text, and at most so many tokens.
_EPOCHS: Mapping[Mode, float] = {"scratch": 10, "full": 3, "lora": 3}
_MAX_TOKENS = 2**23

# A step takes as many windows as leave the run about so many steps; if they are given, _WINDOWS.
_STEPS, _MIN_WINDOWS, _WINDOWS, _MAX_WINDOWS = 1000, 4, 8, 64

# Fewer steps hardly change a model. Of little text a step takes fewer windows; of a few
# conversations, the run is longer.
_MIN_STEPS = 100

# A run is measured so often, on so many tokens, for about a tenth of its time: a token is read
# twice and needs no backward pass. Short runs are measured less often, but not on less text.
_MEASUREMENTS, _MIN_MEASUREMENTS = 10, 3
_MIN_MEASURED, _MAX_MEASURED = 2**14, 2**18
_MEASURED_SHARE = 0.15


@dataclass(frozen=True)
class RunFacts:
    """What defaults depend on.

    Attributes:
        mode: What is trained.
        config: The model.
        tokens_per_epoch: Tokens of the training text, in windows of so many tokens.
        processes: How many train together.
        device: The kind of device.
        free_memory: Bytes that each process may take.
    """

    mode: Mode
    config: GPTNeoXJapaneseConfig
    tokens_per_epoch: Callable[[int], int]
    processes: int
    device: torch.device
    free_memory: int


def mode_of(settings: Settings, init_from: object) -> Mode:
    """What a run trains.

    Args:
        settings: How.
        init_from: A new model's shape, or a model.

    Returns:
        The mode.
    """
    if isinstance(init_from, Architecture):
        return "scratch"
    return "lora" if settings.lora_rank else "full"


def complete_settings(
    settings: Settings,
    facts: RunFacts,
    saved: Mapping[str, Any] | None = None,
    windows_per_step: int | None = None,
) -> RunSettings:
    """Decide what settings leave open.

    Args:
        settings: What was asked for.
        facts: What the rest depends on.
        saved: The settings of the run that is resumed: what is left open is as it was there.
        windows_per_step: How many all of its processes together took in a step, which stays so;
            None if it had as many processes as there are now.

    Returns:
        Settings in which nothing is open.

    Raises:
        ArgumentError: The processes of a resumed run cannot take as many windows in a step.
    """
    given = {
        field.name: getattr(settings, field.name)
        for field in fields(settings)
        if getattr(settings, field.name) is not None
    }
    units = has_bf16_units(facts.device)
    if settings.dtype == "auto":
        given["dtype"] = "bf16" if units else "fp32"
    elif settings.dtype == "bf16" and not units and rank() == 0:
        print(
            "this device has no units for bf16 and emulates it, tens of times slower; leave --dtype"
            " out, or give fp32",
            file=sys.stderr,
        )
    if saved is not None:
        known = {field.name for field in fields(RunSettings)} - {"tokens", "epochs", "dtype"}
        if given.keys() & {"tokens", "epochs"}:
            known.discard("steps")
        as_it_was = {
            name: value for name, value in saved.items() if name in known and value is not None
        }
        # What is not open in `settings` was asked for, or has one default for all runs.
        given = {**as_it_was, **given}
        if as_it_was.keys() >= {"batch_size", "gradient_accumulation"}:
            before = as_it_was["gradient_accumulation"]
            windows = windows_per_step or as_it_was["batch_size"] * before * facts.processes
            given["gradient_accumulation"] = _passes_of_step(
                given, before, windows, facts.processes
            )
    return _decide(given, facts)


def _passes_of_step(given: Mapping[str, Any], before: int, windows: int, processes: int) -> int:
    """The passes in which the steps of a resumed run take as many windows as they did.

    Steps of another size would begin elsewhere in the run: windows would come twice, or never.
    """
    batch, asked, share = given["batch_size"], given["gradient_accumulation"], windows // processes
    passes = share // batch
    # The command that began the run may say what other processes need, at every resumption.
    is_known = asked in (before, passes) or windows % (batch * asked) == 0
    if passes * batch * processes == windows and is_known:
        return int(passes)
    if windows % processes:
        raise ArgumentError(
            f"a step of this run takes {windows} windows, which {processes} processes cannot share;"
            f" start as many as divide {windows}"
        )
    fitting = next(size for size in range(min(batch, share), 0, -1) if share % size == 0)
    raise ArgumentError(
        f"a step of this run takes {windows} windows, and not --batch-size {batch} x"
        f" --gradient-accumulation {asked} x {processes} processes; give --batch-size {fitting}"
        f" --gradient-accumulation {share // fitting}"
    )


def _decide(given: dict[str, Any], facts: RunFacts) -> RunSettings:
    epochs, tokens = given.pop("epochs", None), given.pop("tokens", None)
    window = given["sequence_length"] = given.get("sequence_length") or _window(facts)
    if given.get("lora_rank") and not is_quantized(facts.config):
        # Autocast would round them for every product.
        given.setdefault("frozen_dtype", "fp32" if given.get("shard") else given["dtype"])
    given.setdefault("learning_rate", _learning_rate(facts))
    given.setdefault("warmup", _fitting(_WARMUP[facts.mode], given.get("decay")))
    given.setdefault("decay", _fitting(_DECAY[facts.mode], given["warmup"]))

    open_length = epochs is None and tokens is None and "steps" not in given
    if open_length:
        epochs = min(_EPOCHS[facts.mode], _MAX_TOKENS / facts.tokens_per_epoch(window))
    if epochs is not None:
        tokens = max(1, round(epochs * facts.tokens_per_epoch(window)))
    # Measurements and saves are filled in for now, for the count of memory.
    rest = dict.fromkeys(("log_every", "eval_every", "eval_tokens", "save_every"), 1)
    open_batch = "batch_size" not in given
    passes = given.get("gradient_accumulation", 1)
    if open_batch:
        windows = _windows_per_step(tokens, window) / (facts.processes * passes)
        given["batch_size"] = max(1, round(windows))
    draft = RunSettings(**{"gradient_accumulation": passes, "steps": 1, **rest, **given})
    if open_batch and "gradient_accumulation" not in given:
        draft = _fit_into_memory(draft, facts)
    step = draft.batch_size * draft.gradient_accumulation * facts.processes * window
    fewest = _MIN_STEPS if open_length and open_batch else 1
    steps = given.get("steps", max(fewest, (tokens or 0) // step))
    measured = int(steps * step * _MEASURED_SHARE)
    at_once = min(max(measured // _MEASUREMENTS, _MIN_MEASURED), _MAX_MEASURED)
    measurements = min(max(2 * measured // at_once, _MIN_MEASUREMENTS), _MEASUREMENTS)
    intervals = {
        "log_every": max(1, min(10, steps // 20)),
        "eval_every": math.ceil(steps / measurements),
        "save_every": min(500, math.ceil(steps / 2)),
        "eval_tokens": at_once,
    }
    chosen = {name: given.get(name, value) for name, value in intervals.items()}
    return dataclasses.replace(draft, steps=steps, **chosen)


def _window(facts: RunFacts) -> int:
    """The usual one, or as many tokens as the model reads, or as the text has."""
    longest = min(_WINDOW, int(facts.config.max_position_embeddings))
    return max(2, min(longest, facts.tokens_per_epoch(longest)))


def _learning_rate(facts: RunFacts) -> float:
    low, high = _RATE_RANGE
    size = count_weights(facts.config)
    scratch = min(max(_RATE * (_RATE_WEIGHTS / size) ** _RATE_POWER, low), high)
    return float(f"{scratch * _RATE_OF_MODE[facts.mode]:.2g}")


def _fitting(share: float, other: float | None) -> float:
    """A share of the run, or what another one leaves of it."""
    return share if other is None else min(share, 1 - other)


def _windows_per_step(tokens: int | None, window: int) -> int:
    """As many tokens as a power of two of windows of the usual length."""
    power = int(math.log2(_WINDOWS))
    if tokens is not None:
        windows = tokens / _WINDOW
        power = round(math.log2(min(max(windows / _STEPS, _MIN_WINDOWS), _MAX_WINDOWS)))
        power = min(power, math.floor(math.log2(max(windows / _MIN_STEPS, 1))))
    return max(1, round(2.0**power * _WINDOW / window))


def _fit_into_memory(settings: RunSettings, facts: RunFacts) -> RunSettings:
    """About as many windows in a step, in the fewest passes that fit."""
    while settings.batch_size > 1:
        size = estimate_memory(facts.config, settings)
        if size.fixed + settings.batch_size * size.per_window <= SAFE * facts.free_memory:
            break
        settings = dataclasses.replace(
            settings,
            batch_size=settings.batch_size // 2,
            gradient_accumulation=settings.gradient_accumulation * 2,
        )
    return settings
