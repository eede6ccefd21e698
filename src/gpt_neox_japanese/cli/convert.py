"""`neox-ja convert`: model directory → the same in another format, for us or for llama.cpp."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from gpt_neox_japanese.cli.options import MODEL
from gpt_neox_japanese.cli.stdin import TEXT

__all__ = ["command"]

_BITS = {"bf16": 16, "int8": 8, "int4": 4}


@click.command()
@click.argument("model", type=MODEL, metavar="MODEL")
@click.option(
    "--to",
    "target",
    type=click.Choice([*_BITS, "gguf"]),
    help="Format of the matrices, where with int4 embeddings and head are int8; or gguf, a file "
    "for llama.cpp, ollama and LM Studio.",
)
@click.option(
    "--type",
    "kind",
    type=TEXT,
    help="With --to gguf: f32, f16, bf16, q8_0, q4_0 and others of llama.cpp's names.  [default: "
    "that of MODEL]",
)
@click.option(
    "--from",
    "source",
    type=click.Choice(["gguf"]),
    help="MODEL is a GGUF file that `--to gguf` made; the result is a model directory.",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory to make, which must not exist, or be empty; with --to gguf, a file.",
)
def command(
    model: str, target: str | None, kind: str | None, source: str | None, output: Path
) -> None:
    """Write MODEL, a directory or a Hub id, in another format.

    The result is a model directory again, which `neox-ja generate --model` and `from_pretrained`
    read, or a GGUF file.
    """
    if (source is None) == (target is None):
        raise click.UsageError(
            "--to is missing; name the format, such as int8"
            if source is None
            else f"--from gguf makes a model directory; leave out --to {target}, convert that later"
        )
    if kind is not None and target != "gguf":
        raise click.UsageError(
            "--type is for --to gguf; --to bf16, int8 and int4 say it themselves"
        )

    def progress(done: int, whole: int) -> None:
        if terminal:
            click.echo(f"\r{100 * done // whole} %", nl=False, err=True)

    terminal = sys.stderr.isatty()
    size = _convert(model, target, kind, output, progress)
    if terminal:
        click.echo("\r", nl=False, err=True)
    click.echo(f"{output}: {size / 1e6:,.1f} MB" + " of weights" * (target != "gguf"))


def _convert(
    model: str,
    target: str | None,
    kind: str | None,
    output: Path,
    progress: Callable[[int, int], None],
) -> int:
    """Do what the options say, and return the number of bytes."""
    if target == "gguf":
        from gpt_neox_japanese.interop.gguf_writer import write_gguf

        return write_gguf(model, output, kind=kind and kind.lower(), progress=progress)
    if target is None:
        from gpt_neox_japanese.interop.gguf_reader import read_gguf

        return read_gguf(Path(model), output, progress=progress)
    from gpt_neox_japanese.files.model_directory import find_model
    from gpt_neox_japanese.files.tensor_files import read_tensors
    from gpt_neox_japanese.quantization.convert import convert

    return convert(find_model(model), output, _BITS[target], read=read_tensors, progress=progress)
