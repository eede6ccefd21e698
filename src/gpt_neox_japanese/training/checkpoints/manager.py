"""Checkpoints that a run resumes from: `checkpoint-<step>`, complete or not there.

model.safetensors       float32, the parameters that are trained
average.safetensors     the running average of them, if there is one
optimizer.safetensors   `<parameter>/<name>`: what the optimizer remembers of each
random-<rank>.safetensors  state of torch's random number generators
state.json              everything else, as JSON: parameter groups, schedule, running loss
trainer_state.json      transformers' own counters
manifest.json           bytes and CRC-32 of the others; written last

The directory is written under another name, synced, and renamed. No file of it can hold code;
`reader` reads it back.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from gpt_neox_japanese.errors import CheckpointError, TrainingError
from gpt_neox_japanese.files.atomic import (
    checksum,
    discard_directory,
    publish_directory,
    sync_file,
)
from gpt_neox_japanese.training.checkpoints.reader import (
    AVERAGE,
    MANIFEST,
    MODEL,
    OPTIMIZER,
    RANDOM,
    STATE,
    VERSION,
    verify,
)

__all__ = ["CheckpointManager", "TrainingState"]

_NUM_KEPT = 2


@dataclass(frozen=True)
class TrainingState:
    """What a run resumes from after a step, gathered in the memory of the CPU.

    Attributes:
        step: Optimizer steps done.
        weights: Parameter → float32 tensor, those that are trained.
        optimizer: `<parameter>/<name>` → tensor.
        values: Everything that is no tensor, as JSON values.
        averages: The running average of the weights, by the same names; None if there is none.
    """

    step: int
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    values: Mapping[str, Any]
    averages: Mapping[str, Tensor] | None = None


class CheckpointManager:
    """Writes, keeps and finds the checkpoints of one run.

    A checkpoint is written in three parts: `begin` on the first process, `save_rng_state` on every
    process, `finish` on the first again.

    Args:
        output: The run's directory.

    Example:
        >>> import tempfile
        >>> import torch
        >>> manager = CheckpointManager(Path(tempfile.mkdtemp()))
        >>> manager.begin(step=2)
        >>> manager.save_rng_state(step=2, rank=0)
        >>> state = TrainingState(2, {"w": torch.ones(3)}, {"w/exp_avg": torch.zeros(3)}, {})
        >>> manager.finish(state, lambda directory: None)
        >>> newest, damaged = manager.newest()
        >>> newest.name, damaged
        ('checkpoint-2', [])
    """

    def __init__(self, output: Path) -> None:
        self._output = output

    def partial(self, step: int) -> Path:
        """The hidden directory in which the checkpoint of a step is written.

        Args:
            step: Of the checkpoint.
        """
        return self._output / f".checkpoint-{step}.partial"

    def begin(self, step: int) -> None:
        """Make the hidden directory of a checkpoint, and remove those that killed processes left.

        Args:
            step: Optimizer steps done.

        Raises:
            TrainingError: The disk is full, or fails otherwise; older checkpoints are untouched.
        """
        for pattern in (".checkpoint-*.partial", ".checkpoint-*.old"):
            for leftover in self._output.glob(pattern):
                shutil.rmtree(leftover, ignore_errors=True)
        with self._explain_failure(step):
            self.partial(step).mkdir(parents=True)

    def save_rng_state(self, step: int, rank: int) -> None:
        """Write the state of this process's random number generators; every process calls it.

        Args:
            step: Optimizer steps done.
            rank: Which process this is.

        Raises:
            TrainingError: The disk is full, or fails otherwise; older checkpoints are untouched.
        """
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state()
        with self._explain_failure(step):
            save_file(random, self.partial(step) / RANDOM.format(rank))

    def finish(self, state: TrainingState, write_more: Callable[[Path], None]) -> None:
        """Write the rest of a checkpoint and give it its name; all but this and the one before go.

        One of a later step is damaged, or the run would have been resumed from it.

        Args:
            state: What to write.
            write_more: Writes further files into the directory it is given.

        Raises:
            TrainingError: The disk is full, or fails otherwise; older checkpoints are untouched.
        """
        partial = self.partial(state.step)
        final = self._output / f"checkpoint-{state.step}"
        with self._explain_failure(state.step):
            save_file(dict(state.weights), partial / MODEL, {"format": "pt"})
            if state.averages is not None:
                save_file(dict(state.averages), partial / AVERAGE, {"format": "pt"})
            save_file(dict(state.optimizer), partial / OPTIMIZER)
            _write_json(partial / STATE, state.values)
            write_more(partial)
            files = {}
            for file in sorted(partial.iterdir()):
                sync_file(file)
                files[file.name] = checksum(file)
            _write_json(partial / MANIFEST, {"version": VERSION, "files": files})
            sync_file(partial / MANIFEST)
            publish_directory(partial, final)
        steps = self._steps()
        kept = [step for step in steps if step <= state.step][-_NUM_KEPT:]
        for step in set(steps).difference(kept):
            with suppress(OSError):  # somebody reads it; it goes after a later save
                discard_directory(self._output / f"checkpoint-{step}")

    def newest(self) -> tuple[Path | None, list[str]]:
        """Find the newest complete checkpoint.

        Returns:
            Its directory, or None; and what is wrong with each that is newer but damaged.
        """
        problems = []
        for step in reversed(self._steps()):
            directory = self._output / f"checkpoint-{step}"
            try:
                verify(directory)
            except CheckpointError as error:
                problems.append(str(error))
            else:
                return directory, problems
        return None, problems

    def _steps(self) -> list[int]:
        names = (
            path.name.removeprefix("checkpoint-") for path in self._output.glob("checkpoint-*")
        )
        return sorted(int(name) for name in names if name.isdecimal())

    @contextmanager
    def _explain_failure(self, step: int) -> Iterator[None]:
        """Turn what a disk raises into a TrainingError, and leave nothing half written."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            shutil.rmtree(self.partial(step), ignore_errors=True)
            raise TrainingError(
                f"the checkpoint of step {step} cannot be saved: {error}; {self._what_remains()}"
            ) from error

    def _what_remains(self) -> str:
        newest, _ = self.newest()
        if newest is None:
            return "nothing was saved before; make room and start again"
        return f"{newest.name} is complete: make room and continue with --resume"


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8", newline="\n")
