"""The settings of a training run: their ranges, their record, and what a resumed run may change."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from gpt_neox_japanese.checks import check_integer, check_number, check_text, short_repr
from gpt_neox_japanese.errors import ArgumentError, DataError
from gpt_neox_japanese.files.atomic import write_file
from gpt_neox_japanese.files.model_directory import DEFAULT
from gpt_neox_japanese.files.remote import AnyPath
from gpt_neox_japanese.files.run_records import RECORD

__all__ = [
    "FLOAT_RANGES",
    "INTEGER_RANGES",
    "LORA_TARGETS",
    "MAY_CHANGE",
    "Architecture",
    "RunSettings",
    "Settings",
    "check_same_run",
    "check_saved",
    "chosen_optimizer",
    "record_settings",
    "settings_to_dict",
    "upgrade_saved",
    "whole_name",
]

# Minimum and maximum of each number; None where only computing sets a bound.
INTEGER_RANGES: Mapping[str, tuple[int, int | None]] = {
    **dict.fromkeys(("hidden_size", "layers", "heads"), (1, None)),
    **dict.fromkeys(("batch_size", "gradient_accumulation", "steps"), (1, None)),
    **dict.fromkeys(("log_every", "eval_every", "save_every"), (1, None)),
    **dict.fromkeys(("eval_tokens", "sample_tokens"), (1, None)),
    "tokens": (1, 2**53),
    "sequence_length": (2, None),
    "seed": (0, 2**32 - 1),  # NumPy's
    **dict.fromkeys(("lora_rank", "early_stopping"), (0, None)),
}
FLOAT_RANGES: Mapping[str, tuple[float, float | None]] = {
    **dict.fromkeys(("learning_rate", "weight_decay", "max_grad_norm", "lora_alpha"), (0, None)),
    **dict.fromkeys(("warmup", "decay", "subword_dropout"), (0, 1)),
    "lora_dropout": (0, 0.99),
    "ema": (0, 0.999999),
    "epochs": (0, 10**6),
}
_MAX_INTEGER = 2**31 - 1  # of whole numbers without a bound of their own
_CHOICES = {
    "optimizer": ("auto", "muon", "adamw"),
    "schedule": ("wsd", "cosine"),
    "dtype": ("auto", "bf16", "fp32"),
    "save_dtype": ("bf16", "fp32"),
    "frozen_dtype": ("bf16", "fp32"),
}
LORA_TARGETS = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
"""The matrices of a layer that may have adapters; without a choice the first one has."""

Precision = Literal["bf16", "fp32"]

# A run is as long as one of these says.
_LENGTHS = ("steps", "tokens", "epochs")

MAY_CHANGE = {
    *("output", "resume", *_LENGTHS, "log_every", "eval_every", "eval_tokens", "save_every"),
    *("save_dtype", "sample_prompt", "sample_tokens", "report_to", "merge", "dtype"),
    "early_stopping",
    *("batch_size", "gradient_accumulation"),  # `complete_settings` keeps the windows of a step
}
"""What a resumed run may change: none of it alters what was trained so far."""


@dataclass(frozen=True)
class Architecture:
    """The shape of a model that is trained from scratch.

    Raises:
        ArgumentError: A number is none, or out of range.
    """

    hidden_size: int = 256
    layers: int = 6
    heads: int = 4

    def __post_init__(self) -> None:
        _check_values(self)


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run's result besides its data and its starting point.

    What is None is chosen when the run begins, by its kind, its size and the machine: see
    `training.defaults`.

    Attributes:
        sequence_length: Tokens of a window, and a new model's `max_position_embeddings`.
        batch_size: Windows per device in one forward pass.
        gradient_accumulation: Forward passes per step.
        steps: Optimizer steps.
        tokens: The length of the run in tokens, instead of `steps`.
        epochs: The length of the run in passes over the training text, instead of `steps`.
        optimizer: `muon` (for the hidden matrices; AdamW for the rest) or `adamw`; `auto` is
            `adamw` for LoRA and `muon` otherwise.
        learning_rate: The peak, for both optimizers.
        schedule: `wsd` (warm-up, constant, linear decay) or `cosine` (warm-up, cosine decay).
        warmup: The fraction of the steps over which the learning rate rises.
        decay: The fraction of the steps over which `wsd` falls to zero at the end.
        weight_decay: Of all matrices.
        max_grad_norm: Gradients are clipped to this norm; 0 for no clipping.
        seed: Of the weights and of the order of the windows.
        dtype: Precision of the forward and backward pass; weights and optimizer stay fp32. `auto`
            is `bf16` where the device has units for it.
        save_dtype: Precision of the finished model.
        compile: Whether to run the model through `torch.compile`.
        gradient_checkpointing: Whether to compute activations twice instead of keeping them.
        attention: Transformers' name of an attention implementation; the fastest here if None.
        document_masking: Whether a token sees only its own document.
        subword_dropout: Probability of passing over the best piece wherever there is a choice;
            the text is encoded anew in every epoch (like BPE-dropout).
        lora_rank: Train adapters of this rank instead of the model's own weights; 0 for none.
        lora_alpha: The adapters count `lora_alpha / lora_rank`; twice the rank if None.
        lora_target: Names of the matrices that have adapters; `query_key_value` if there are none.
        lora_dropout: Probability of dropping an input of the adapters.
        frozen_dtype: How the matrices that adapters stand beside are stored, if the model is not
            quantised.
        ema: Decay of a running average of the weights, which is measured and exported in their
            place; 0 for none. It begins lower: after `n` steps it is at most `(1 + n) / (10 + n)`.
        merge: Whether to leave the model with its adapters merged in `merged` as well.
        shard: Whether weights and optimizer state are sharded over the processes (FSDP2).
        log_every: Steps between lines of the loss log; the first step has one always.
        eval_every: Steps between measurements on the held-out text.
        eval_tokens: About how many held-out tokens such a measurement takes.
        save_every: Steps between saves.
        keep_best: Whether the model that is left is the one with the best measurement, not the
            last one.
        early_stopping: End the run after so many measurements without a better one; 0 for never.
        sample_prompt: Beginnings that the model continues at each measurement.
        sample_tokens: Tokens of such a continuation.
        report_to: Transformers' names of reporters that are told what `loss.jsonl` is.

    Raises:
        ArgumentError: A value is out of its range, or two cannot go together.
    """

    sequence_length: int | None = None
    batch_size: int | None = None
    gradient_accumulation: int | None = None
    steps: int | None = None
    tokens: int | None = None
    epochs: float | None = None
    optimizer: Literal["auto", "muon", "adamw"] = "auto"
    learning_rate: float | None = None
    schedule: Literal["wsd", "cosine"] = "wsd"
    warmup: float | None = None
    decay: float | None = None
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    seed: int = 0
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    save_dtype: Precision = "bf16"
    compile: bool = False
    gradient_checkpointing: bool = False
    attention: str | None = None
    document_masking: bool = False
    subword_dropout: float = 0.0
    lora_rank: int = 0
    lora_alpha: float | None = None
    lora_target: tuple[str, ...] = ()
    lora_dropout: float = 0.0
    frozen_dtype: Precision | None = None
    ema: float = 0.0
    merge: bool = False
    shard: bool = False
    log_every: int | None = None
    eval_every: int | None = None
    eval_tokens: int | None = None
    save_every: int | None = None
    keep_best: bool = False
    early_stopping: int = 0
    sample_prompt: tuple[str, ...] = ()
    sample_tokens: int = 60
    report_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_values(self)
        lengths = [name for name in _LENGTHS if getattr(self, name) is not None]
        if len(lengths) > 1:
            raise ArgumentError(
                f"--{lengths[0]} and --{lengths[1]} exclude each other: both say how long the run "
                "is; give one of them"
            )
        warmup, decay = self.warmup or 0.0, self.decay or 0.0
        if warmup + (decay if self.schedule == "wsd" else 0) > 1:
            raise ArgumentError(
                f"warmup {self.warmup} and decay {self.decay} are more than the whole run; "
                "their sum must not exceed 1"
            )
        windows = (self.batch_size or 1) * (self.gradient_accumulation or 1)
        if (self.steps or 1) * windows > 2**53:
            raise ArgumentError(
                f"{self.steps} steps of {self.batch_size} x {self.gradient_accumulation} windows "
                "are more than can be counted; give fewer"
            )
        if self.lora_rank and self.optimizer == "muon":
            raise ArgumentError(
                "optimizer muon does not suit the thin matrices of LoRA; use adamw or auto"
            )
        for name in ("merge", "lora_alpha", "lora_target", "lora_dropout", "frozen_dtype"):
            if getattr(self, name) and not self.lora_rank:
                option = name.replace("_", "-")
                raise ArgumentError(
                    f"--{option} requires --lora-rank; give a rank, or leave --{option} out"
                )
        for target in self.lora_target:
            if target not in LORA_TARGETS:
                raise ArgumentError(
                    f"lora_target is {short_repr(target)}; it must be one of "
                    f"{', '.join(LORA_TARGETS)}"
                )
        if self.shard and self.frozen_dtype == "bf16":
            raise ArgumentError("--shard shares fp32 weights only; leave --frozen-dtype out")

    @property
    def uses_muon(self) -> bool:
        """Whether the hidden matrices are Muon's."""
        return chosen_optimizer(self.optimizer, self.lora_rank) == "muon"


@dataclass(frozen=True, kw_only=True)
class RunSettings(Settings):
    """Settings in which everything is decided; the attributes are those of `Settings`."""

    sequence_length: int
    batch_size: int
    gradient_accumulation: int
    steps: int
    learning_rate: float
    warmup: float
    decay: float
    dtype: Precision
    log_every: int
    eval_every: int
    eval_tokens: int
    save_every: int


def check_saved(saved: Mapping[str, Any]) -> None:
    """Hold what a checkpoint remembers of settings to what each of them may be.

    Args:
        saved: What a checkpoint remembers, as `settings_to_dict` and then JSON give it.

    Raises:
        ArgumentError: A value is out of its range.
    """
    _check_values(SimpleNamespace(**saved))


def chosen_optimizer(optimizer: str, lora_rank: int) -> str:
    """Tell what `auto` is.

    Args:
        optimizer: See `Settings`.
        lora_rank: See `Settings`.

    Returns:
        `muon` or `adamw`.
    """
    if optimizer == "auto":
        return "adamw" if lora_rank else "muon"
    return optimizer


def _check_values(settings: Architecture | Settings | SimpleNamespace) -> None:
    """Hold every value to what it may be, and make Python's own numbers of NumPy's."""
    for name, value in vars(settings).items():
        if value is None and getattr(Settings, name, "") is None:
            continue  # it is left open
        if name in _CHOICES and value not in _CHOICES[name]:
            raise ArgumentError(
                f"{name} is {short_repr(value)}; it must be one of {', '.join(_CHOICES[name])}"
            )
        if name in INTEGER_RANGES:
            object.__setattr__(settings, name, _whole(name, value))
        elif name in FLOAT_RANGES:
            object.__setattr__(settings, name, _real(name, value))
        elif name == "attention":
            check_text(name, value, ArgumentError)


def _whole(name: str, value: Any) -> int:
    low, high = INTEGER_RANGES[name]
    return check_integer(
        name, value, ArgumentError, minimum=low, maximum=_MAX_INTEGER if high is None else high
    )


def _real(name: str, value: Any) -> float:
    low, high = FLOAT_RANGES[name]
    most = math.inf if high is None else high
    upper = "or more" if high is None else f"to {high}"
    return check_number(
        name,
        value,
        ArgumentError,
        lambda number: math.isfinite(number) and low <= number <= most,
        f"a finite number, {low} {upper}",
    )


def record_settings(
    output: Path,
    data: AnyPath,
    settings: Settings,
    init_from: Architecture | str | Path,
    *,
    tokenizer: str | Path | None = None,
    held_out_data: AnyPath | None = None,
) -> None:
    """Write `train.json`, which `--config` reads: the command that made the run.

    Args:
        output: The run's directory.
        data: What `--data` named; of a URL, credentials are not written.
        settings: How it is trained.
        init_from: The new model's shape, or the model to train on: a directory's whole path, or
            the name that it has elsewhere.
        tokenizer: What `--tokenizer` named.
        held_out_data: What `--held-out-data` named.
    """
    origin = (
        asdict(init_from)
        if isinstance(init_from, Architecture)
        else {"init_from": whole_name(init_from)}
    )
    named = {"data": data, "tokenizer": tokenizer, "held_out_data": held_out_data}
    paths = {name: str(path) for name, path in named.items() if path is not None}
    record = {**paths, **origin, **asdict(settings)}
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    write_file(output / RECORD, text.encode())


def whole_name(model: str | Path) -> str:
    """Name a model so that it is found from every directory, and no other is.

    Args:
        model: What `--init-from` named.

    Returns:
        A directory's whole path, which named as a repository would look like one anywhere else;
        or the name itself.
    """
    is_here = model != DEFAULT and os.path.isdir(model)
    return os.path.abspath(model) if is_here else str(model)


def check_same_run(
    saved: Mapping[str, Any], settings: Settings, init_from: Architecture | str | Path
) -> None:
    """Make sure that a run is resumed with what it was started with.

    Args:
        saved: What its checkpoint remembers, as `upgrade_saved` gives it.
        settings: What it shall go on with.
        init_from: The new model's shape, or the model that was trained on.

    Raises:
        DataError: Something that decides the result is another; the message names it.
    """
    now = json.loads(json.dumps(settings_to_dict(settings, init_from)))
    # An option that did not exist when it was started was not given.
    saved = {**json.loads(json.dumps(asdict(Settings()))), **saved}
    for name, value in now.items():
        if name not in MAY_CHANGE and saved.get(name) != value:
            raise DataError(
                f"the run was started with {name} {saved.get(name)!r}, now it is {value!r}; give "
                "the same, or start a new run with --init-from"
            )


def upgrade_saved(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a run saved as today's version would have saved it.

    Args:
        saved: What a checkpoint remembers, as `settings_to_dict` and then JSON give it.

    Returns:
        The same, where an earlier version saved it, with what that left out.
    """
    added: dict[str, Any] = {}
    if "model" in saved:  # what the first version called it
        added["init_from"] = saved["model"]
    if saved.get("lora_rank"):  # adapters stood beside nothing else
        added["frozen_dtype"] = "fp32"
    return {**added, **saved}


def settings_to_dict(settings: Settings, init_from: Architecture | str | Path) -> dict[str, Any]:
    """Give settings and start as values that JSON can hold.

    Args:
        settings: How it is trained.
        init_from: The new model's shape, or the model to train on.

    Returns:
        Name → value; of a model to train on, `init_from` is its name without directories.
    """
    # `.` and `..` have no names of their own.
    origin = (
        asdict(init_from)
        if isinstance(init_from, Architecture)
        else {"init_from": Path(os.path.abspath(init_from)).name}
    )
    return {**asdict(settings), **origin}
