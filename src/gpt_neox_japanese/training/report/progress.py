"""What a run shows while it goes: a bar on a terminal, plain lines in a file or a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping

from tqdm import tqdm

from gpt_neox_japanese.training.machine.estimate import show_seconds

__all__ = ["Progress"]


class Progress:
    """Shows how far a run is, on standard error.

    Args:
        total: Steps of the run.
        done: Steps that an earlier part of it did.
    """

    def __init__(self, total: int, done: int) -> None:
        self._total, self._first, self._start = total, done, time.perf_counter()
        self._shown: dict[str, str] = {}
        self._bar = (
            tqdm(total=total, initial=done, desc="train", unit="step", dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def advance(self, step: int) -> None:
        """Say that a step is done.

        Args:
            step: How many are done with it.
        """
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def show(self, step: int, values: Mapping[str, str]) -> None:
        """Show how the run is doing: beside the bar, or in a line of its own.

        Args:
            step: How many steps are done.
            values: Name → value, as people read it.
        """
        if self._bar is not None:
            self._shown.update(values)
            self._bar.set_postfix(self._shown)
            return
        shown = ", ".join(f"{name} {value}" for name, value in values.items())
        self.tell([f"step {step:,}/{self._total:,}: {shown}{self._time_left(step)}"])

    def tell(self, lines: Iterable[str]) -> None:
        """Write lines that stay.

        Args:
            lines: Without their ends.
        """
        for line in lines:
            if self._bar is not None:
                self._bar.write(line, file=sys.stderr)
            else:
                print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar standing."""
        if self._bar is not None:
            self._bar.close()

    def _time_left(self, step: int) -> str:
        done, left = step - self._first, self._total - step
        if not done or not left:
            return ""
        seconds = (time.perf_counter() - self._start) / done * left
        return f", about {show_seconds(seconds)} left"
