"""`neox-ja convert`: checkpoint → checkpoint of another format."""

from __future__ import annotations

import sys
from pathlib import Path

import click

__all__ = ["command"]

_BITS = {"bf16": 16, "int8": 8, "int4": 4}


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "target",
    type=click.Choice(list(_BITS)),
    required=True,
    help="Format of the matrices. With int4, embeddings and head are int8.",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory to make; it must not exist, or be empty.",
)
def command(checkpoint: Path, target: str, output: Path) -> None:
    """Write the model in the directory CHECKPOINT in another format.

    The result is a checkpoint again: `neox-ja generate --model` and `from_pretrained` read it.
    """
    from gpt_neox_japanese.files.tensor_files import read_tensors
    from gpt_neox_japanese.quantization.convert import convert

    def progress(done: int, whole: int) -> None:
        if terminal:
            click.echo(f"\r{done / 1e6:,.0f} of {whole / 1e6:,.0f} MB", nl=False, err=True)

    terminal = sys.stderr.isatty()
    size = convert(checkpoint, output, _BITS[target], read=read_tensors, progress=progress)
    if terminal:
        click.echo("\r", nl=False, err=True)
    click.echo(f"{output}: {size / 1e6:,.1f} MB of weights")
