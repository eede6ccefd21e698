"""`neox-ja merge`: a model with adapters added to its weights."""

from __future__ import annotations

from pathlib import Path

import click

from gpt_neox_japanese.cli.options.shared import MODEL, PATH

__all__ = ["command"]


@click.command()
@click.argument("adapter", type=PATH)
@click.option("--output", required=True, type=PATH, help="Model directory to make.")
@click.option(
    "--base",
    type=MODEL,
    metavar="PATH_OR_ID",
    help="The model that was adapted.  [default: what adapter_config.json names]",
)
@click.option(
    "--save-dtype",
    type=click.Choice(["bf16", "fp32"]),
    default="bf16",
    show_default=True,
    help="Precision of the weights.",
)
def command(adapter: Path, output: Path, base: str | None, save_dtype: str) -> None:
    """Add ADAPTER, which `neox-ja train --lora-rank` made, to the model that it adapts.

    The result is a model directory like any other, for `neox-ja generate`, `serve` and `convert`.
    """
    import torch

    from gpt_neox_japanese.training.checkpoints.combine import merge_adapter

    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[save_dtype]
    size = merge_adapter(adapter, output, base, dtype)
    click.echo(f"{output}: {size:,} parameters")
