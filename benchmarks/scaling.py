"""How far a model of a size gets with so much text: the measurements behind a choice of model.

    python benchmarks/scaling.py DATA OUTPUT [--sizes 128x4 256x6 384x8] [--tokens 4e6 16e6 64e6]

DATA is what `neox-ja prepare` made. For each size one run is trained at a constant rate to the
largest number of tokens, and from its states at the smaller ones a short decay each: so every point
has a schedule that ended, at little more than the cost of one run. OUTPUT gets the runs,
`scaling.json`, a table (`scaling.md`) and a curve (`scaling.svg`). Runs that are there are not
repeated, and one that was interrupted is resumed: the script can be stopped and started at will.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from gpt_neox_japanese.training.report.page import read_log
from gpt_neox_japanese.training.report.plot import draw_curves
from gpt_neox_japanese.training.run import train
from gpt_neox_japanese.training.settings import Architecture, Settings

DECAY = 0.25  # of a point's tokens


def main() -> None:
    """Train what is missing, then write table and curve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--sizes", nargs="+", default=["128x4", "256x6", "384x8"])
    parser.add_argument("--tokens", nargs="+", type=float, default=[4e6, 16e6, 64e6])
    parser.add_argument("--sequence-length", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    settings = Settings(
        sequence_length=arguments.sequence_length,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        dtype=arguments.dtype,
        compile=arguments.compile,
        save_dtype="fp32",
        warmup=0.0,
    )
    points = []
    for size in arguments.sizes:
        for tokens in sorted(arguments.tokens):
            points.append(measure(arguments, settings, size, int(tokens)))
            write(arguments.output, points)


def measure(
    arguments: argparse.Namespace, settings: Settings, size: str, tokens: int
) -> dict[str, Any]:
    """One point: a model of a size after so many tokens, the last quarter of them in decay."""
    hidden, layers = map(int, size.split("x"))
    shape = Architecture(hidden, layers, max(1, hidden // 64))
    per_step = arguments.sequence_length * arguments.batch_size
    steps = max(tokens // per_step, 8)
    stable = steps - round(DECAY * steps)
    runs = arguments.output
    trunk = runs / f"{size}-trunk-{stable}"
    before = sorted(
        (path for path in runs.glob(f"{size}-trunk-*") if steps_of(path) < stable), key=steps_of
    )
    # The trunk goes on from the last one: Muon's momentum is built up again within some steps.
    start: Architecture | Path = before[-1] if before else shape
    done = steps_of(before[-1]) if before else 0
    constant = dataclasses.replace(
        settings, steps=stable - done, decay=0.0, warmup=0.02, seed=done, eval_every=10**9
    )
    finish(arguments.data, trunk, constant, start)
    final = runs / f"{size}-{steps}"
    falling = dataclasses.replace(
        settings, steps=steps - stable, decay=1.0, seed=steps, eval_every=10**9
    )
    finish(arguments.data, final, falling, trunk)
    log = read_log(final / "loss.jsonl")
    bits = [x for x in log if "held_out_bits_per_character" in x][-1]
    config = json.loads((final / "config.json").read_text(encoding="utf-8"))
    return {
        "size": size,
        "parameters": config["vocab_size"] * hidden + 12 * layers * hidden**2,
        "tokens": steps * per_step,
        "bits_per_character": bits["held_out_bits_per_character"],
    }


def steps_of(trunk: Path) -> int:
    """The steps behind a trunk's model."""
    return int(trunk.name.rsplit("-", 1)[1])


def finish(data: Path, output: Path, settings: Settings, start: Architecture | Path) -> None:
    """Train a run, or the rest of it, or nothing if it is there."""
    if (output / "report.md").is_file():
        return
    resume = any(output.glob("checkpoint-*"))
    if not resume and output.is_dir():
        (output / "train.json").unlink(missing_ok=True)
        (output / "loss.jsonl").unlink(missing_ok=True)
        for rest in output.iterdir():
            raise SystemExit(f"{rest} is in the way; remove {output}")
    if not train(data, output, settings, start, resume=resume):
        raise SystemExit(130)


def write(output: Path, points: list[dict[str, Any]]) -> None:
    """Table, curve and numbers of the points so far."""
    (output / "scaling.json").write_text(json.dumps(points, indent=1) + "\n", encoding="utf-8")
    rows = "".join(
        f"| {p['size']} | {p['parameters'] / 1e6:.2f} M | {p['tokens'] / 1e6:.2f} M | "
        f"{6 * p['parameters'] * p['tokens']:.1e} | {p['bits_per_character']:.3f} |\n"
        for p in points
    )
    head = (
        "| channels x layers | parameters | tokens | operations | held-out bits per character |\n"
    )
    (output / "scaling.md").write_text(head + "|---|---|---|---|---|\n" + rows, encoding="utf-8")
    curves: dict[str, list[tuple[float, float]]] = {}
    for p in points:
        name = f"{p['parameters'] / 1e6:.1f} M ({p['size']})"
        curves.setdefault(name, []).append((p["tokens"], p["bits_per_character"]))
    picture = draw_curves(curves, "tokens", "held-out bits per character", log_x=True)
    (output / "scaling.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
