"""What a run tells while it trains: the progress bar, the loss log, the held-out bits."""

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

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["Export", "Interruption", "Report"]

LOSS_LOG = "loss.jsonl"


class Report(TrainerCallback):
    """Writes `loss.jsonl` and draws the progress bar on stderr.

    A line of the log has `step`, `tokens`, `seconds` (of this session) and either `loss` (nats per
    token since the last line), `learning_rate` and `tokens_per_second`, or
    `held_out_bits_per_character`.

    Args:
        output: the run's directory.
        tokens_per_step: tokens of one optimizer step.
        tokens_per_character: of the held-out part; turns nats per token into bits per character.
    """

    def __init__(self, output: Path, tokens_per_step: int, tokens_per_character: float) -> None:
        self._log = output / LOSS_LOG
        self._tokens_per_step = tokens_per_step
        self._bits_per_nat_per_token = tokens_per_character / math.log(2)
        self._shown: dict[str, str] = {}

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Start the clock and the bar where the run stands."""
        self._forget_after(state.global_step)
        self._bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc="train", unit="step"
        )
        self._start = self._training_since = time.perf_counter()
        self._last_step = state.global_step

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Move the bar; have the finished model measured, whatever the interval."""
        self._bar.update(state.global_step - self._bar.n)
        if state.global_step >= state.max_steps and args.eval_strategy != "no":
            control.should_evaluate = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Write a line of losses."""
        logs: dict[str, float] = kwargs["logs"]
        if "loss" not in logs:  # the trainer's summaries and evaluations
            return
        now = time.perf_counter()
        tokens = (state.global_step - self._last_step) * self._tokens_per_step
        rate = tokens / (now - self._training_since)
        self._training_since, self._last_step = now, state.global_step
        self._write(
            state,
            loss=logs["loss"],
            learning_rate=logs["learning_rate"],
            grad_norm=logs["grad_norm"],
            tokens_per_second=round(rate),
        )
        self._show(loss=f"{logs['loss']:.3f}", tokens=f"{rate:,.0f}/s")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Write a line of held-out bits per character."""
        metrics: dict[str, float] = kwargs["metrics"]
        bits = metrics["eval_loss"] * self._bits_per_nat_per_token
        self._write(state, held_out_bits_per_character=bits)
        self._show(held_out=f"{bits:.3f} bits/character")
        # The time spent evaluating is not the training's.
        self._training_since += metrics["eval_runtime"]

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Leave the bar standing."""
        self._bar.close()

    def _forget_after(self, step: int) -> None:
        """Drop what a resumed run has logged and is about to do again."""
        if self._log.exists():
            lines = self._log.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            self._log.write_text("".join(kept), encoding="utf-8")

    def _write(self, state: TrainerState, **values: float) -> None:
        line = {
            "step": state.global_step,
            "tokens": state.global_step * self._tokens_per_step,
            "seconds": round(time.perf_counter() - self._start, 2),
            **values,
        }
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def _show(self, **values: str) -> None:
        self._shown.update(values)
        self._bar.set_postfix(self._shown)


class Export(TrainerCallback):
    """Renews the run's finished model whenever the trainer saves.

    Args:
        write: writes the model of the moment.
    """

    def __init__(self, write: Callable[[], None]) -> None:
        self._write = write

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Write it."""
        self._write()


class Interruption(TrainerCallback):
    """Makes the first Ctrl-C end the run after the step it is in, saved; the second one kills it.

    A context manager: Ctrl-C has this meaning inside its block.

    Attributes:
        happened: whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.happened = False

    def __enter__(self) -> Self:
        self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Stop and save if it was pressed."""
        if self.happened:
            control.should_save = control.should_training_stop = True

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.happened = True
        signal.signal(signal.SIGINT, self._previous)
