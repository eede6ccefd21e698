"""Reading a checkpoint that a run is resumed from, which may be damaged or a stranger's.

Names, shapes, dtypes and kinds of values are compared with those that the run itself would have
written, before anything of it reaches the model, the optimizer or transformers' Trainer. Compiled
optimizers believe in shapes: a tensor that is too short is memory of somebody else to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import TrainerState

from gpt_neox_japanese.checks import is_count, is_finite, short_repr
from gpt_neox_japanese.errors import ArgumentError, CheckpointError
from gpt_neox_japanese.files.atomic import checksum
from gpt_neox_japanese.files.json_files import read_object
from gpt_neox_japanese.files.regular_files import check_regular, is_plain_name
from gpt_neox_japanese.training.settings import check_saved, upgrade_saved

__all__ = [
    "AVERAGE",
    "MANIFEST",
    "MODEL",
    "OPTIMIZER",
    "RANDOM",
    "STATE",
    "TRAINER_STATE",
    "VERSION",
    "Progress",
    "TensorLayout",
    "load_progress",
    "load_rng_state",
    "load_tensors",
    "verify",
]

MANIFEST = "manifest.json"
MODEL = "model.safetensors"
AVERAGE = "average.safetensors"
OPTIMIZER = "optimizer.safetensors"
RANDOM = "random-{}.safetensors"
STATE = "state.json"
TRAINER_STATE = "trainer_state.json"  # transformers' name
VERSION = 1

TensorLayout = tuple[tuple[int, ...], torch.dtype]
"""Shape and dtype of a tensor."""

_REMEDY = "remove this checkpoint, to resume from an older one or to start over"

_MAX_WINDOWS = 2**31 - 1  # of a step

_CUDA_RNG: TensorLayout = ((16,), torch.uint8)  # a seed and an offset

# What safetensors calls the dtypes of a run.
_DTYPES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
}


@dataclass(frozen=True)
class Progress:
    """Where a run stood, besides its tensors.

    Attributes:
        settings: Of the run, for `check_same_run`.
        data: `RunData.fingerprint` of what it was trained on.
        groups: The optimizer's parameter groups; each has at least its learning rate, `lr`.
        schedule_step: How often the schedule was advanced.
        running_loss: What the next line of the log will average over.
        last_logged: Step of the last line.
        windows_per_step: How many windows a step took in all processes together; None if an
            earlier version saved it, which did not say.
        measured_tokens: How many held-out tokens the best figure is of; None if there is none, or
            an earlier version saved it.
        base: `base_digest` of the model that adapters stand beside; None if there are none, or an
            earlier version saved it.
        held_out: `RunData.held_out_fingerprint`; None if there is none, or an earlier version
            saved it.
    """

    settings: Mapping[str, Any]
    data: str
    groups: tuple[Mapping[str, Any], ...]
    schedule_step: int
    running_loss: float
    last_logged: int
    windows_per_step: int | None
    measured_tokens: int | None
    base: str | None
    held_out: str | None


def verify(directory: Path) -> None:
    """Make sure that every file of a checkpoint is as it was written.

    Args:
        directory: A checkpoint.

    Raises:
        CheckpointError: One is missing, too short, or changed; the message names it.
    """
    path = directory / MANIFEST
    manifest = read_object(path, remedy=_REMEDY)
    files, version = manifest.get("files"), manifest.get("version")
    if version is True or version != VERSION or not isinstance(files, dict):
        raise CheckpointError(f"{path} is not what a run writes; {_REMEDY}")
    for name in (MODEL, OPTIMIZER, STATE):
        if name not in files:
            raise CheckpointError(f"{path} does not name {name}; {_REMEDY}")
    for name, expected in files.items():
        if not is_plain_name(name):
            raise CheckpointError(f"{path} names the file {name!r}, which no run writes; {_REMEDY}")
        file = directory / name
        check_regular(file)
        if not file.is_file():
            raise CheckpointError(f"{file} is missing; {_REMEDY}")
        if list(checksum(file)) != expected:
            raise CheckpointError(
                f"{file} was changed or cut short after it was written; {_REMEDY}"
            )


def load_tensors(path: Path, layout: Mapping[str, TensorLayout]) -> dict[str, Tensor]:
    """Read the tensors that a file must hold, and no others.

    Args:
        path: A safetensors file.
        layout: Name → shape and dtype of every tensor.

    Returns:
        Name → tensor, in the memory of the CPU.

    Raises:
        CheckpointError: The file is broken, or a tensor is missing, unknown, or of another shape
            or dtype; the message names it.
    """
    with _opened(path) as file:
        for name in sorted(layout.keys() ^ set(file.keys())):
            what = "lacks" if name in layout else "holds the unknown tensor"
            raise CheckpointError(
                f"{path} {what} {short_repr(name)}; it is of another model, or damaged: {_REMEDY}"
            )
        for name, (shape, dtype) in layout.items():
            stored = file.get_slice(name)
            kind, expected = f"{stored.get_dtype()} {stored.get_shape()}", _DTYPES[dtype]
            if kind != f"{expected} {list(shape)}":
                raise CheckpointError(
                    f"{path}: {name!r} is {kind}, and in this run {expected} {list(shape)}; it is"
                    f" of another model, or damaged: {_REMEDY}"
                )
        return {name: file.get_tensor(name) for name in layout}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file, whose reader checks that the tensors fit the file."""
    check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} cannot be read: {reason}; {_REMEDY}") from error


def load_progress(directory: Path) -> Progress:
    """Read where a run stood, and make sure that transformers can read its own part.

    Args:
        directory: Of a checkpoint.

    Returns:
        What is not in tensors.

    Raises:
        CheckpointError: A file is missing or broken, or a field of it is not what a run writes.
    """
    path = directory / STATE
    values = read_object(path, remedy=_REMEDY)
    schedule, groups = values.get("schedule"), values.get("groups")
    windows, measured = values.get("windows_per_step"), values.get("measured_tokens")
    kinds = {
        "settings": isinstance(values.get("settings"), dict),
        "data": isinstance(values.get("data"), str),
        "groups": isinstance(groups, list) and all(map(_is_group, groups)),
        "schedule": isinstance(schedule, dict) and is_count(schedule.get("last_epoch")),
        "running_loss": _fits_float32(values.get("running_loss")),
        "last_logged": is_count(values.get("last_logged")),
        "windows_per_step": windows is None or (is_count(windows) and 0 < windows <= _MAX_WINDOWS),
        "measured_tokens": measured is None or is_count(measured),
        "base": isinstance(values.get("base"), str | None),
        "held_out": isinstance(values.get("held_out"), str | None),
    }
    for name, fits in kinds.items():
        if not fits:
            raise CheckpointError(
                f"{path}: {name!r} is {short_repr(values.get(name))}, which no run writes;"
                f" {_REMEDY}"
            )
    try:
        check_saved(values["settings"])
    except ArgumentError as error:
        raise CheckpointError(f"{path}: of 'settings', {error}; {_REMEDY}") from error
    _check_trainer_state(directory / TRAINER_STATE)
    return Progress(
        settings=upgrade_saved(values["settings"]),
        data=values["data"],
        groups=tuple(values["groups"]),
        schedule_step=values["schedule"]["last_epoch"],
        running_loss=float(values["running_loss"]),  # torch takes no large integer
        last_logged=values["last_logged"],
        windows_per_step=windows,
        measured_tokens=measured,
        base=values.get("base"),
        held_out=values.get("held_out"),
    )


def _is_group(group: Any) -> bool:
    return isinstance(group, dict) and _fits_float32(group.get("lr"))


def _fits_float32(value: Any) -> bool:
    """Whether torch can take a number into the arithmetic of a run."""
    return is_finite(value) and abs(value) <= torch.finfo(torch.float32).max


def _check_trainer_state(path: Path) -> None:
    """Hold what transformers reads by itself to what it writes."""
    values = read_object(path, remedy=_REMEDY)
    step = path.parent.name.rpartition("-")[2]
    # The run divides by these.
    every = ("logging_steps", "eval_steps", "save_steps", "train_batch_size")
    counts = ("max_steps", "num_train_epochs", "num_input_tokens_seen")
    for field in fields(TrainerState):
        name, value = field.name, values.pop(field.name, None)
        fits = {
            "global_step": str(value) == step and is_count(value),
            **dict.fromkeys(every, is_count(value) and value > 0),
            **dict.fromkeys(counts, is_count(value)),
            "epoch": is_finite(value),
            "total_flos": is_finite(value),
            "log_history": isinstance(value, list) and all(isinstance(x, dict) for x in value),
            "stateful_callbacks": isinstance(value, dict),
            # A directory: transformers would look whether it is there.
            "best_model_checkpoint": value is None,
        }
        if not fits.get(name, value is None or is_finite(value) or isinstance(value, bool)):
            raise CheckpointError(
                f"{path}: {name!r} is {short_repr(value)}, which no run writes; {_REMEDY}"
            )
    for name in values:
        raise CheckpointError(f"{path} has {short_repr(name)}, which no run writes; {_REMEDY}")


def load_rng_state(directory: Path, rank: int) -> None:
    """Restore this process's random number generators, if the run had a process of this rank.

    Args:
        directory: A checkpoint.
        rank: Which process this is.

    Raises:
        CheckpointError: The file is broken, or of another version of torch.
    """
    path = directory / RANDOM.format(rank)
    if not path.exists():
        return
    state = torch.get_rng_state()
    layout: dict[str, TensorLayout] = {"cpu": (tuple(state.shape), state.dtype)}
    with _opened(path) as file:
        if "cuda" in set(file.keys()):  # a run may go on without the GPU it had, or with one
            layout["cuda"] = _CUDA_RNG
    random = load_tensors(path, layout)
    try:
        torch.set_rng_state(random["cpu"])
        if "cuda" in random and torch.cuda.is_available():
            torch.cuda.set_rng_state(random["cuda"])
    except RuntimeError as error:
        raise CheckpointError(f"{path} is no state of a generator: {error}; {_REMEDY}") from error
