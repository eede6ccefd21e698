"""Callbacks of transformers' Trainer: progress bar, loss log, samples, and Ctrl-C."""

# The trainer decides which arguments its callbacks have.

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
import torch.distributed as dist
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gpt_neox_japanese.files.atomic import write_file
from gpt_neox_japanese.training.report.mfu import MfuMeter
from gpt_neox_japanese.training.report.page import read_log

__all__ = ["LOSS_LOG", "InterruptCallback", "LossLogCallback", "SamplesCallback"]

LOSS_LOG = "loss.jsonl"
SAMPLES = "samples.jsonl"

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class LossLogCallback(TrainerCallback):
    """Writes `loss.jsonl` and draws the progress bar on stderr.

    A line of the log has `step`, `tokens`, `seconds` (since the run was last started) and either
    `loss` (nats per token since the last line), the same as `bits_per_character`, `learning_rate`,
    `grad_norm`, `tokens_per_second` and `mfu`, or `held_out_bits_per_character`.

    Args:
        output: The run's directory.
        tokens_per_step: Tokens of one optimizer step.
        tokens_per_character: Of the held-out part; turns nats per token into bits per character.
        mfu_meter: Turns tokens per second into MFU.
    """

    def __init__(
        self,
        output: Path,
        tokens_per_step: int,
        tokens_per_character: float,
        mfu_meter: MfuMeter,
    ) -> None:
        self._log = output / LOSS_LOG
        self._mfu_meter = mfu_meter
        self._tokens_per_step = tokens_per_step
        self._bits_per_nat_per_token = tokens_per_character / math.log(2)
        self._shown: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Start the clock and the bar where the run stands; see `TrainerCallback`."""
        self._forget_after(state.global_step)
        self._bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc="train", unit="step"
        )
        self._start = self._training_since = time.perf_counter()
        self._last_step = state.global_step

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Move the bar; see `TrainerCallback`."""
        self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: TrainerState, control: Any, **given: Any) -> None:
        """Write a line of losses; see `TrainerCallback`."""
        logs: dict[str, float] = given["logs"]
        if "loss" not in logs:  # the trainer's summaries and evaluations
            return
        now = time.perf_counter()
        tokens = (state.global_step - self._last_step) * self._tokens_per_step
        rate = tokens / (now - self._training_since)
        self._training_since, self._last_step = now, state.global_step
        self._write(
            state,
            loss=logs["loss"],
            bits_per_character=logs["loss"] * self._bits_per_nat_per_token,
            learning_rate=logs["learning_rate"],
            grad_norm=logs["grad_norm"],
            tokens_per_second=round(rate),
            mfu=round(self._mfu_meter.mfu(rate), 4),
        )
        self._show(
            loss=f"{logs['loss']:.3f}",
            tokens=f"{rate:,.0f}/s",
            mfu=f"{self._mfu_meter.mfu(rate):.0%}",
        )

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **given: Any) -> None:
        """Write a line of held-out bits per character; see `TrainerCallback`."""
        metrics: dict[str, float] = given["metrics"]
        bits = metrics["eval_loss"] * self._bits_per_nat_per_token
        self._write(state, held_out_bits_per_character=bits)
        self._show(held_out=f"{bits:.3f} bits/character")
        # The time spent evaluating is not the training's.
        self._training_since += metrics["eval_runtime"]

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Leave the bar standing; see `TrainerCallback`."""
        self._bar.close()

    def _forget_after(self, step: int) -> None:
        """Drop what a resumed run has logged and is about to do again."""
        if self._log.exists():
            kept = [line for line in read_log(self._log) if line["step"] <= step]
            write_file(self._log, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def _write(self, state: TrainerState, **values: float) -> None:
        line = {
            "step": state.global_step,
            "tokens": state.global_step * self._tokens_per_step,
            "seconds": round(time.perf_counter() - self._start, 2),
            **values,
        }
        with self._log.open("a", encoding="utf-8", newline="\n") as log:
            log.write(json.dumps(line) + "\n")

    def _show(self, **values: str) -> None:
        self._shown.update(values)
        self._bar.set_postfix(self._shown)


class SamplesCallback(TrainerCallback):
    """Lets the model write at each measurement; `samples.jsonl` has a line for each.

    Args:
        output: The run's directory; None on processes that write with the others, but no file.
        write: Makes the texts of the moment.

    Attributes:
        texts: The last ones.
    """

    def __init__(self, output: Path | None, write: Callable[[], list[str]]) -> None:
        self._output = output
        self._write = write
        self.texts: list[str] = []

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Let the model write, and log the texts; see `TrainerCallback`."""
        self.texts = self._write()
        if self._output is not None:
            line = json.dumps({"step": state.global_step, "texts": self.texts}, ensure_ascii=False)
            with (self._output / SAMPLES).open("a", encoding="utf-8", newline="\n") as file:
                file.write(line + "\n")


class InterruptCallback(TrainerCallback):
    """Makes the first Ctrl-C end the run after the step it is in, saved; the second one kills it.

    SIGTERM, which schedulers and torchrun send, is taken the same way. Of several processes all
    stop after the same step. A context manager: signals have this meaning inside its block.

    Attributes:
        happened: Whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.happened = False

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save and stop after a signal; measure the finished model; see `TrainerCallback`."""
        if state.global_step >= state.max_steps and args.eval_strategy != "no":
            control.should_evaluate = True
        if args.world_size > 1:
            flag = torch.tensor(float(self.happened), device=args.device)
            dist.all_reduce(flag, dist.ReduceOp.MAX)
            self.happened = bool(flag)
        if self.happened:
            control.should_save = control.should_training_stop = True

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.happened = True
        self._restore()

    def _restore(self) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
