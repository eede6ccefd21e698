"""`neox-ja train`: pretraining from scratch, or training on from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from gpt_neox_japanese.training.settings import Architecture, Settings

__all__ = ["command"]

_POSITIVE = click.IntRange(min=1)
_FRACTION = click.FloatRange(0, 1)
_AT_LEAST_ZERO = click.FloatRange(min=0)
_PRECISION = click.Choice(["bf16", "fp32"])
_DEFAULTS = {**asdict(Architecture()), **asdict(Settings())}


def _option(name: str, kind: Any, text: str) -> Callable[[Any], Any]:
    default = _DEFAULTS[name.removeprefix("--").replace("-", "_")]
    return click.option(name, type=kind, default=default, show_default=True, help=text)


@click.command()
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory that `neox-ja prepare` made.",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory of the run: the model, train.json, loss.jsonl, checkpoints.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Model to train on from; without it, a new one is made.",
)
@_option("--hidden-size", _POSITIVE, "Channels of a new model.")
@_option("--layers", _POSITIVE, "Layers of a new model.")
@_option("--heads", _POSITIVE, "Attention heads of a new model.")
@_option("--sequence-length", click.IntRange(min=2), "Tokens of a window.")
@_option("--batch-size", _POSITIVE, "Windows per device and forward pass.")
@_option("--gradient-accumulation", _POSITIVE, "Forward passes per step.")
@click.option(
    "--steps", type=_POSITIVE, help=f"Length of the run.  [default: {_DEFAULTS['steps']}]"
)
@click.option("--tokens", type=_POSITIVE, help="Length of the run in tokens, instead of --steps.")
@_option("--learning-rate", _AT_LEAST_ZERO, "Peak learning rate.")
@_option("--warmup", _FRACTION, "Fraction of the steps with rising learning rate.")
@_option("--decay", _FRACTION, "Fraction of the steps with falling rate, at the end.")
@_option("--weight-decay", _AT_LEAST_ZERO, "Weight decay of the matrices.")
@_option("--max-grad-norm", _AT_LEAST_ZERO, "Gradients are clipped to this norm.")
@_option("--seed", int, "Seed of the weights and of the order of the windows.")
@_option("--dtype", _PRECISION, "Precision of the computation; weights stay fp32.")
@_option("--save-dtype", _PRECISION, "Precision of the finished model.")
@click.option("--compile", is_flag=True, help="Run the model through torch.compile.")
@_option("--log-every", _POSITIVE, "Steps between lines of loss.jsonl.")
@_option("--eval-every", _POSITIVE, "Steps between measurements on the held-out text.")
@_option("--eval-tokens", _POSITIVE, "Held-out tokens of such a measurement.")
@_option("--save-every", _POSITIVE, "Steps between saves.")
@click.option("--resume", is_flag=True, help="Continue the run in --output.")
def command(
    data: Path,
    output: Path,
    model: Path | None,
    hidden_size: int,
    layers: int,
    heads: int,
    steps: int | None,
    tokens: int | None,
    resume: bool,
    **options: Any,
) -> None:
    """Train a model on a prepared corpus.

    Ctrl-C ends the run after the step it is in and saves it; the same command with --resume
    continues it.
    """
    if steps is not None and tokens is not None:
        raise click.UsageError("--steps and --tokens exclude each other")
    if hidden_size % heads:
        raise click.UsageError(f"--hidden-size {hidden_size} is not a multiple of --heads {heads}")

    from transformers.utils.logging import disable_progress_bar

    from gpt_neox_japanese.training.run import train

    disable_progress_bar()  # type: ignore[no-untyped-call]  # the run has its own
    if tokens is not None:
        step = options["sequence_length"] * options["batch_size"] * options["gradient_accumulation"]
        steps = max(tokens // step, 1)
    settings = Settings(steps=steps or _DEFAULTS["steps"], **options)
    start = model or Architecture(hidden_size, layers, heads)
    if train(data, output, settings, start, resume=resume):
        click.echo(f"the model is in {output}")
    else:
        click.echo(f"stopped; continue with the same command and --resume ({output})", err=True)
        raise click.exceptions.Exit(130)
