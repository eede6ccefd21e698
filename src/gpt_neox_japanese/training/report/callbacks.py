"""Callbacks of transformers' Trainer: loss log, samples, and Ctrl-C."""

# The trainer decides which arguments its callbacks have.

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gpt_neox_japanese.checks import is_count
from gpt_neox_japanese.files.atomic import write_file
from gpt_neox_japanese.files.run_records import LOSS_LOG, SAMPLES
from gpt_neox_japanese.training.distributed import rank
from gpt_neox_japanese.training.report.mfu import MfuMeter
from gpt_neox_japanese.training.report.page import read_log
from gpt_neox_japanese.training.report.progress import Progress

__all__ = ["InterruptCallback", "LossLogCallback", "SamplesCallback"]

_STOPPING = "\nstopping after this step, which is saved; once more to stop at once\n"

_STDERR = 2

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class LossLogCallback(TrainerCallback):
    """Writes `loss.jsonl`, and shows the run's progress.

    A line of the log has `step`, `tokens`, `epoch`, `seconds` (of the whole run, however often it
    was stopped) and either `dtype`, when the run starts, goes on or is stopped; or `loss` (nats per
    token since the last line), the same as `bits_per_character`, `learning_rate`, `grad_norm`,
    `tokens_per_second` and `mfu`; or `held_out_bits_per_character`, and of how many
    `held_out_tokens` that is.

    Args:
        output: The run's directory.
        dtype: Precision of the run.
        tokens_per_step: Tokens of one optimizer step.
        tokens_per_epoch: Tokens of the training text.
        tokens_per_character: Of the held-out part; turns nats per token into bits per character.
        mfu_meter: Turns tokens per second into MFU.
    """

    def __init__(
        self,
        output: Path,
        dtype: str,
        tokens_per_step: int,
        tokens_per_epoch: int,
        tokens_per_character: float,
        mfu_meter: MfuMeter,
    ) -> None:
        self._log = output / LOSS_LOG
        self._dtype = dtype
        self._mfu_meter = mfu_meter
        self._tokens_per_step, self._tokens_per_epoch = tokens_per_step, tokens_per_epoch
        self._bits_per_nat_per_token = tokens_per_character / math.log(2)

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Start the clock and the display where the run stands; see `TrainerCallback`."""
        self.progress = Progress(state.max_steps, state.global_step)
        now = time.perf_counter()
        self._start = now - self._forget_after(state.global_step)
        self._training_since = self._step_ended = now
        self._measured = False
        self._last_step = state.global_step
        self._write(state, dtype=self._dtype)

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Leave out of the speed what a measurement took; see `TrainerCallback`."""
        if self._measured:
            self._training_since += time.perf_counter() - self._step_ended
            self._measured = False

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Move the bar; see `TrainerCallback`."""
        self._step_ended = time.perf_counter()
        self.progress.advance(state.global_step)

    def on_log(self, args: Any, state: TrainerState, control: Any, **given: Any) -> None:
        """Write a line of losses; see `TrainerCallback`."""
        logs: dict[str, float] = given["logs"]
        if "loss" not in logs:  # the trainer's summaries and evaluations
            return
        now = time.perf_counter()
        tokens = (state.global_step - self._last_step) * self._tokens_per_step
        rate = tokens / (now - self._training_since)
        self._training_since, self._last_step = now, state.global_step
        bits, mfu = logs["loss"] * self._bits_per_nat_per_token, self._mfu_meter.mfu(rate)
        self._write(
            state,
            loss=logs["loss"],
            bits_per_character=bits,
            learning_rate=logs["learning_rate"],
            grad_norm=logs["grad_norm"],
            tokens_per_second=round(rate),
            mfu=round(mfu, 4),
        )
        shown = {"loss": f"{logs['loss']:.3f}", "tokens/s": f"{rate:,.0f}", "MFU": f"{mfu:.0%}"}
        self.progress.show(state.global_step, shown)

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **given: Any) -> None:
        """Write a line of held-out bits per character; see `TrainerCallback`."""
        metrics: dict[str, float] = given["metrics"]
        bits = metrics["eval_loss"] * self._bits_per_nat_per_token
        tokens = int(metrics["eval_tokens"])
        self._write(state, held_out_bits_per_character=bits, held_out_tokens=tokens)
        step = f"step {state.global_step:,}/{state.max_steps:,}"
        self.progress.tell([f"{step}: held-out text {bits:.3f} bits per character"])
        self._measured = True

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Leave the bar standing, and a line where the run was stopped; see `TrainerCallback`."""
        self.progress.close()
        if self._written < state.global_step:
            self._write(state, dtype=self._dtype)

    def _forget_after(self, step: int) -> float:
        """Drop what a resumed run has logged and is about to do again; the seconds until there."""
        kept = [line for line in read_log(self._log) if line["step"] <= step]
        if self._log.exists():
            write_file(self._log, "".join(json.dumps(line) + "\n" for line in kept).encode())
        return max((line.get("seconds", 0.0) for line in kept), default=0.0)

    def _write(self, state: TrainerState, **values: float | str) -> None:
        self._written = state.global_step
        tokens = state.global_step * self._tokens_per_step
        line = {
            "step": state.global_step,
            "tokens": tokens,
            "epoch": round(tokens / self._tokens_per_epoch, 4),
            "seconds": round(time.perf_counter() - self._start, 2),
            **values,
        }
        with self._log.open("a", encoding="utf-8", newline="\n") as log:
            log.write(json.dumps(line) + "\n")


class SamplesCallback(TrainerCallback):
    """Lets the model write at each measurement; `samples.jsonl` has a line for each.

    Args:
        output: The run's directory; None on processes that write with the others, but no file.
        write: Makes the texts of the moment.
        tell: Shows lines to whoever watches the run.
    """

    def __init__(
        self,
        output: Path | None,
        write: Callable[[], list[str]],
        tell: Callable[[Iterable[str]], None],
    ) -> None:
        self._output = output
        self._write, self._tell = write, tell

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Drop what a resumed run is about to write again; see `TrainerCallback`."""
        if self._output is None or not (self._output / SAMPLES).exists():
            return
        lines = (self._output / SAMPLES).read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if _is_sample(line, state.global_step)]
        write_file(self._output / SAMPLES, b"".join(kept))

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Let the model write, and log the texts; see `TrainerCallback`."""
        texts = self._write()
        if self._output is None:
            return
        line = json.dumps({"step": state.global_step, "texts": texts}, ensure_ascii=False)
        with (self._output / SAMPLES).open("a", encoding="utf-8", newline="\n") as file:
            file.write(line + "\n")
        self._tell(f"  {row}" for text in texts for row in text.splitlines() if row.strip())


def _is_sample(line: bytes, step: int) -> bool:
    """Whether a line is a whole one of a step up to that one."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):  # a kill has cut it short
        return False
    return isinstance(values, dict) and is_count(values.get("step")) and values["step"] <= step


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
        """Save and stop after a signal; log and measure the last step; see `TrainerCallback`."""
        if state.global_step >= state.max_steps:
            control.should_log = True
            control.should_evaluate = args.eval_strategy != "no"
        if args.world_size > 1:
            flag = torch.tensor(float(self.happened), device=args.device)
            dist.all_reduce(flag, dist.ReduceOp.MAX)
            self.happened = bool(flag)
        if self.happened:
            control.should_save = control.should_training_stop = True

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.happened = True
        self._restore()
        if rank() == 0:
            # Not print: the signal may have come in the middle of one.
            os.write(_STDERR, _STOPPING.encode())

    def _restore(self) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
