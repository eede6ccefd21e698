"""The report of a run on one page: `report.md`, with `loss.svg` beside it."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from gpt_neox_japanese.checks import is_count, is_finite
from gpt_neox_japanese.files.atomic import write_file
from gpt_neox_japanese.training.report.plot import draw_curves

__all__ = ["read_log", "write_report"]

REPORT = "report.md"
PICTURE = "loss.svg"

# What the report shows of a line with a loss.
_MEASURED = {"step", "tokens", "loss", "bits_per_character", "tokens_per_second", "mfu"}


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
    if not isinstance(values, dict) or not all(map(is_finite, values.values())):
        return False
    needed = _MEASURED if "loss" in values else {"step", "tokens"}
    return values.keys() >= needed and all(is_count(values[name]) for name in ("step", "tokens"))


def write_report(
    output: Path,
    log: Sequence[dict[str, Any]],
    settings: dict[str, Any],
    parameters: int,
    samples: Sequence[str],
) -> None:
    """Write `report.md` and `loss.svg`.

    Args:
        output: The run's directory.
        log: The lines of its loss log.
        settings: What `train.json` holds.
        parameters: Of the model.
        samples: The last texts that it wrote.
    """
    losses = [line for line in log if "loss" in line]
    held_out = [line for line in log if "held_out_bits_per_character" in line]
    curves = {"training": [(line["tokens"], line["bits_per_character"]) for line in losses]}
    curves["held out"] = [(x["tokens"], x["held_out_bits_per_character"]) for x in held_out]
    curves = {name: points for name, points in curves.items() if points}
    picture = draw_curves(curves, "tokens", "bits per character", log_x=False)
    write_file(output / PICTURE, picture.encode())
    page = _page(output, losses, held_out, settings, parameters, samples)
    write_file(output / REPORT, page.encode())


def _page(
    output: Path,
    losses: Sequence[dict[str, Any]],
    held_out: Sequence[dict[str, Any]],
    settings: dict[str, Any],
    parameters: int,
    samples: Sequence[str],
) -> str:
    facts = {"Parameters": f"{parameters:,}"}
    if losses:
        speeds = sorted(line["tokens_per_second"] for line in losses)
        last = losses[-1]
        facts |= {
            "Steps": f"{last['step']:,}",
            "Tokens": f"{last['tokens']:,}",
            "Last loss": f"{last['loss']:.4f} nats per token",
            "Speed": f"{speeds[len(speeds) // 2]:,} tokens/s (median), "
            f"{last['mfu']:.0%} of the device's matrix products",
        }
    if held_out:
        bits = held_out[-1]["held_out_bits_per_character"]
        facts["Held-out text"] = f"{bits:.4f} bits per character"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    facts["Device"] = f"{device}, {torch.get_num_threads()} threads"
    facts["Versions"] = ", ".join(f"{n} {version(n)}" for n in ("torch", "transformers"))
    rows = "".join(f"| {name} | {value} |\n" for name, value in facts.items())
    options = "".join(f"| {name} | {value} |\n" for name, value in settings.items() if value)
    texts = "".join(f"> {text.strip()}\n\n".replace("\n>", ">") for text in samples)
    return (
        f"# {output.resolve().name}\n\n| | |\n|---|---|\n{rows}\n![loss]({PICTURE})\n\n"
        + (f"## What it writes\n\n{texts}" if samples else "")
        + f"## Settings\n\n| | |\n|---|---|\n{options}"
    )
