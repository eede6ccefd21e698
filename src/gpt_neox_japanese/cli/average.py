"""`neox-ja average`: the mean of several checkpoints."""

from __future__ import annotations

from pathlib import Path

import click

from gpt_neox_japanese.cli.options.number_types import Real
from gpt_neox_japanese.cli.options.shared import MODEL, PATH

__all__ = ["command"]


@click.command()
@click.argument("models", nargs=-1, required=True, type=MODEL)
@click.option("--output", required=True, type=PATH, help="Model directory to make.")
@click.option(
    "--share",
    "shares",
    multiple=True,
    type=Real(min=0),
    help="How much a model counts, once for each in their order.  [default: all alike]",
)
def command(models: tuple[str, ...], output: Path, shares: tuple[float, ...]) -> None:
    """Write the mean of MODELS, which have one shape and one vocabulary.

    Checkpoints of one run, or of runs from one start: their mean often predicts better than each.
    """
    from gpt_neox_japanese.files.model_directory import find_model
    from gpt_neox_japanese.training.checkpoints.combine import average_models

    size = average_models([find_model(model) for model in models], output, shares or None)
    click.echo(f"{output}: {size:,} parameters, the mean of {len(models)} models")
