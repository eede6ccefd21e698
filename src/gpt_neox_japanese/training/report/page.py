"""The report of a run on one page: `report.md`, with `loss.svg` beside it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from gpt_neox_japanese.checks import is_count, is_finite
from gpt_neox_japanese.files.atomic import write_file
from gpt_neox_japanese.training.machine.estimate import show_seconds
from gpt_neox_japanese.training.machine.memory_estimate import show_bytes
from gpt_neox_japanese.training.report.plot import draw_curves

__all__ = ["RunSummary", "read_log", "write_report"]

REPORT = "report.md"
PICTURE = "loss.svg"

_DTYPES = ("bf16", "fp32")

# What the report shows of a line with a loss.
_MEASURED = {"step", "tokens", "loss", "bits_per_character", "tokens_per_second", "mfu"}


@dataclass(frozen=True)
class RunSummary:
    """What a report tells besides the loss log.

    Attributes:
        parameters: Of the model.
        trained: How many of them are trained.
        data: The training text and the held-out text, in words.
        held_out: Which held-out tokens a measurement takes, in words.
        kept_best: Whether the model is that of the best measurement, and not the last.
        peak_memory: Bytes that the process, or its GPU, held at most.
    """

    parameters: int
    trained: int
    data: Mapping[str, str]
    held_out: str
    kept_best: bool
    peak_memory: int


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read a loss log.

    Args:
        path: `loss.jsonl`; it may be missing.

    Returns:
        Its lines; what no run writes is left out, such as a line that a kill has cut short.
    """
    lines = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if _is_line(values):
            lines.append(values)
    return lines


def _is_line(values: Any) -> bool:
    if not isinstance(values, dict):
        return False
    numbers = {name: value for name, value in values.items() if name != "dtype"}
    if not all(map(is_finite, numbers.values())) or values.get("dtype", "bf16") not in _DTYPES:
        return False
    needed = _MEASURED if "loss" in values else {"step", "tokens"}
    return values.keys() >= needed and all(is_count(values[name]) for name in ("step", "tokens"))


def write_report(
    output: Path,
    log: Sequence[dict[str, Any]],
    settings: dict[str, Any],
    summary: RunSummary,
    samples: Sequence[str],
) -> None:
    """Write `report.md`, and `loss.svg` if there is a curve to draw.

    Args:
        output: The run's directory.
        log: The lines of its loss log.
        settings: What `train.json` holds.
        summary: What else there is to tell.
        samples: The last texts that it wrote.
    """
    losses = [line for line in log if "loss" in line]
    held_out = [line for line in log if "held_out_bits_per_character" in line]
    curves = {"training": [(line["tokens"], line["bits_per_character"]) for line in losses]}
    curves["held out"] = [(x["tokens"], x["held_out_bits_per_character"]) for x in held_out]
    curves = {name: points for name, points in curves.items() if points}
    if curves:
        picture = draw_curves(curves, "tokens", "bits per character", log_x=False)
        write_file(output / PICTURE, picture.encode())
    facts = {
        **_progress(log, losses),
        **_measurements(held_out, summary),
        **_circumstances(log, summary),
    }
    rows = "".join(f"| {name} | {value} |\n" for name, value in facts.items())
    options = "".join(f"| {name} | {value} |\n" for name, value in settings.items() if value)
    texts = "".join(f"> {text.strip()}\n\n".replace("\n>", ">") for text in samples)
    page = (
        f"# {output.resolve().name}\n\n| | |\n|---|---|\n{rows}\n"
        + (f"![loss]({PICTURE})\n\n" if curves else "")
        + (f"## What it writes\n\n{texts}" if samples else "")
        + f"## Settings\n\n| | |\n|---|---|\n{options}"
    )
    write_file(output / REPORT, page.encode())


def _progress(log: Sequence[dict[str, Any]], losses: Sequence[dict[str, Any]]) -> Mapping[str, str]:
    if not losses:
        return {}
    last = losses[-1]
    speed, mfu = (median(line[name] for line in losses) for name in ("tokens_per_second", "mfu"))
    epochs = f" ({last['epoch']:.2f} epochs)" if "epoch" in last else ""
    return {
        "Steps": f"{last['step']:,}",
        "Tokens": f"{last['tokens']:,}{epochs}",
        "Time": show_seconds(max(line.get("seconds", 0) for line in log)),
        "Last loss": f"{last['loss']:.4f} nats per token",
        "Speed": f"{speed:,.0f} tokens/s (median), {mfu:.0%} of the device's matrix products",
    }


def _measurements(held_out: Sequence[dict[str, Any]], summary: RunSummary) -> Mapping[str, str]:
    if not held_out:
        return {"Held-out text": "none was measured"}
    name = "held_out_bits_per_character"
    best = min(held_out, key=lambda line: line[name])
    kept = best if summary.kept_best else held_out[-1]
    shown = f"{kept[name]:.4f} bits per character after step {kept['step']:,}"
    if kept is not held_out[0]:
        first = held_out[0]
        shown += f", {first[name]:.4f} after step {first['step']:,}"
    if best is not kept:
        shown += f"; the best was {best[name]:.4f} after step {best['step']:,}"
    return {"Held-out text": f"{shown} ({summary.held_out})"}


def _circumstances(log: Sequence[dict[str, Any]], summary: RunSummary) -> Mapping[str, str]:
    parameters, trained = f"{summary.parameters:,}", summary.trained
    share = trained / max(summary.parameters, 1)
    parameters += ", all trained" if share == 1 else f", {trained:,} ({share:.1%}) trained"
    precisions: list[str] = []
    for line in log:
        if "dtype" in line and (not precisions or not precisions[-1].startswith(line["dtype"])):
            since = f" from step {line['step'] + 1:,} on" if precisions else ""
            precisions.append(line["dtype"] + since)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "Parameters": parameters,
        **summary.data,
        "Precision": ", ".join(precisions),
        "Memory": f"{show_bytes(summary.peak_memory)} at most, in this process",
        "Device": f"{device}, {torch.get_num_threads()} threads",
        "Versions": ", ".join(f"{n} {version(n)}" for n in ("torch", "transformers")),
    }
