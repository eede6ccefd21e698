"""`neox-ja convert`: model directory → model directory with weights of another format."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gpt_neox_japanese.cli.options import MODEL

__all__ = ["command"]

_BITS = {"bf16": 16, "int8": 8, "int4": 4}


@click.command()
@click.argument("model", type=MODEL, metavar="MODEL")
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
def command(model: str, target: str, output: Path) -> None:
    """Write MODEL, a directory or a Hub id, in another format.

    The result is a model directory again: `neox-ja generate --model` and `from_pretrained` read it.
    """
    from gpt_neox_japanese.files.model_directory import find_model
    from gpt_neox_japanese.files.tensor_files import read_tensors
    from gpt_neox_japanese.quantization.convert import convert

    def progress(done: int, whole: int) -> None:
        if terminal:
            click.echo(f"\r{done / 1e6:,.0f} of {whole / 1e6:,.0f} MB", nl=False, err=True)

    terminal = sys.stderr.isatty()
    size = convert(find_model(model), output, _BITS[target], read=read_tensors, progress=progress)
    if terminal:
        click.echo("\r", nl=False, err=True)
    click.echo(f"{output}: {size / 1e6:,.1f} MB of weights")
