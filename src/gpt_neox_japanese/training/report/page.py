"""The report of a run on one page: `report.md`, with `loss.svg` beside it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from gpt_neox_japanese.checks import is_count, is_finite
from gpt_neox_japanese.files.atomic import write_file
from gpt_neox_japanese.files.run_records import PICTURE, REPORT
from gpt_neox_japanese.training.machine.estimate import show_seconds
from gpt_neox_japanese.training.machine.memory_estimate import show_bytes
from gpt_neox_japanese.training.report.plot import draw_curves

__all__ = [
    "RunSummary",
    "measurements",
    "quoted",
    "read_log",
    "read_samples",
    "write_report",
]

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


def read_samples(path: Path) -> list[str]:
    """Read the last texts that a run wrote.

    Args:
        path: `samples.jsonl`; it may be missing.

    Returns:
        The texts; none if its last line is not what a run writes.
    """
    try:
        newest = path.read_bytes().splitlines()[-1]  # of a str, texts may have others within
        return [text for text in json.loads(newest)["texts"] if isinstance(text, str)]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []


def quoted(texts: Sequence[str]) -> str:
    """Quote texts in Markdown.

    Args:
        texts: Of any number of lines each.

    Returns:
        A quotation for each.
    """
    return "".join("> " + "\n> ".join(text.strip().splitlines()) + "\n\n" for text in texts)


def measurements(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choose the lines of a log with held-out figures that can be compared.

    Args:
        log: Its lines.

    Returns:
        Those of the text that was measured last: a resumed run may measure more or less than
        was measured before. What an older version logged does not say of how much it is, and
        counts as equal, as it does where the best model is kept.
    """
    lines = [line for line in log if "held_out_bits_per_character" in line]
    equal = {None, *(line.get("held_out_tokens") for line in lines[-1:])}
    newest = takewhile(lambda line: line.get("held_out_tokens") in equal, reversed(lines))
    return list(newest)[::-1]


def write_report(
    output: Path,
    log: Sequence[dict[str, Any]],
    settings: dict[str, Any],
    summary: RunSummary,
    samples: Sequence[str],
) -> str:
    """Write `report.md`, and `loss.svg` if there is a curve to draw.

    Args:
        output: The run's directory.
        log: The lines of its loss log.
        settings: What `train.json` holds.
        summary: What else there is to tell.
        samples: The last texts that it wrote.

    Returns:
        What became of the held-out figure, in a line.
    """
    losses = [line for line in log if "loss" in line]
    held_out = measurements(log)
    if losses or held_out:
        write_file(output / PICTURE, _picture(losses, held_out).encode())
    measured = _measured(held_out, summary)
    facts = {
        **_progress(log, losses),
        "Held-out text": f"{measured} ({summary.held_out})" if held_out else measured,
        **_circumstances(log, summary),
    }
    rows = "".join(f"| {name} | {value} |\n" for name, value in facts.items())
    # A bar within a value would end its cell.
    options = "".join(
        f"| {name} | {str(value).replace('|', '&#124;')} |\n"
        for name, value in settings.items()
        if value or (value == 0 and value is not False)
    )
    page = (
        f"# {output.resolve().name}\n\n| | |\n|---|---|\n{rows}\n"
        + (f"![loss]({PICTURE})\n\n" if losses or held_out else "")
        + (f"## What it writes\n\n{quoted(samples)}" if samples else "")
        + f"## Settings\n\n| | |\n|---|---|\n{options}"
    )
    write_file(output / REPORT, page.encode())
    return measured


def _picture(losses: Sequence[dict[str, Any]], held_out: Sequence[dict[str, Any]]) -> str:
    """The curves: what was logged goes up and down with the texts of a step, its mean does not."""
    logged = [(line["tokens"], line["bits_per_character"]) for line in losses]
    curves = {
        "training, as logged": logged,
        "training, mean": _means(losses, "bits_per_character"),
        "held out": [(x["tokens"], x["held_out_bits_per_character"]) for x in held_out],
    }
    if not curves["training, mean"]:
        curves = {"training": logged, "held out": curves["held out"]}
    curves = {name: points for name, points in curves.items() if points}
    faint = {"training, as logged"}
    return draw_curves(curves, "tokens", "bits per character", log_x=False, faint=faint)


def _means(losses: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    """Means over the epoch, or in a run of less than two, over the tenth of the run before."""
    last = losses[-1] if losses else {}
    epochs = last.get("epoch", 0.0)
    span = last["tokens"] / (epochs if epochs >= 2 else 10) if losses else 0.0
    points, first = [], 0
    for number, line in enumerate(losses, start=1):
        while losses[first]["tokens"] <= line["tokens"] - span:
            first += 1
        if line["tokens"] >= span and number - first > 1:
            points.append((line["tokens"], fmean(x[name] for x in losses[first:number])))
    return points


def _progress(log: Sequence[dict[str, Any]], losses: Sequence[dict[str, Any]]) -> Mapping[str, str]:
    if not losses:
        return {}
    last, done = losses[-1], log[-1]
    speed, mfu = (median(line[name] for line in losses) for name in ("tokens_per_second", "mfu"))
    epochs = f" ({done['epoch']:.2f} epochs)" if "epoch" in done else ""
    loss = f"{last['loss']:.4f} nats per token"
    if len(means := _means(losses, "loss")) > 1:
        over = "an epoch" if last.get("epoch", 0) >= 2 else "a tenth of the run"
        (_, first), (_, newest) = means[0], means[-1]
        loss = f"{newest:.4f} nats per token at the end, {first:.4f} at first (means over {over})"
    return {
        "Steps": f"{done['step']:,}",
        "Tokens": f"{done['tokens']:,}{epochs}",
        "Time": show_seconds(max(line.get("seconds", 0) for line in log)),
        "Training loss": loss,
        "Speed": f"{speed:,.0f} tokens/s (median), {mfu:.0%} of the device's matrix products",
    }


def _measured(held_out: Sequence[dict[str, Any]], summary: RunSummary) -> str:
    if not held_out:
        return "none was measured"
    name = "held_out_bits_per_character"
    best = min(held_out, key=lambda line: line[name])
    kept = best if summary.kept_best else held_out[-1]
    shown = f"{kept[name]:.4f} bits per character after step {kept['step']:,}"
    if kept is not held_out[0]:
        first = held_out[0]
        shown += f", {first[name]:.4f} after step {first['step']:,}"
    if best[name] < kept[name]:
        shown += f"; the best was {best[name]:.4f} after step {best['step']:,}: see --keep-best"
    return shown


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
