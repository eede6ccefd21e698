"""`neox-ja convert`: model directory → other weights; checkpoints of other programs and back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from gpt_neox_japanese.cli.number_types import Whole
from gpt_neox_japanese.cli.options import MODEL

__all__ = ["command"]

_BITS = {"bf16": 16, "int8": 8, "int4": 4}
_NEOX = "gpt-neox"


@click.command()
@click.argument("model", type=MODEL, metavar="MODEL")
@click.option(
    "--to",
    "target",
    type=click.Choice([*_BITS, _NEOX]),
    help="Format of the matrices: with int4, embeddings and head are int8. Or gpt-neox for a "
    "checkpoint of EleutherAI/gpt-neox, which keeps every number.",
)
@click.option(
    "--from",
    "source",
    type=click.Choice([_NEOX]),
    help="MODEL is a checkpoint of EleutherAI/gpt-neox; the result is a model directory.",
)
@click.option(
    "--vocabulary",
    type=MODEL,
    metavar="PATH_OR_ID",
    help="With --from: the vocabulary that the model was trained with.",
)
@click.option(
    "--model-parallel",
    type=Whole(min=1, max=1024),
    metavar="N",
    help="With --to gpt-neox: over how many GPUs each layer is split.  [default: 1]",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory to make; it must not exist, or be empty.",
)
def command(
    model: str,
    target: str | None,
    source: str | None,
    vocabulary: str | None,
    model_parallel: int | None,
    output: Path,
) -> None:
    """Write MODEL, a directory or a Hub id, in another format.

    With --to bf16, int8 or int4 and with --from the result is a model directory: `neox-ja generate
    --model` and `from_pretrained` read it.
    """
    if (source is None) == (target is None):
        raise click.UsageError(
            "give one of --to and --from; to go from a foreign format to another, convert twice"
        )
    if (source is None) != (vocabulary is None):
        raise click.UsageError(
            "--from needs --vocabulary, the directory with the vocab.txt and emoji.json that the"
            " model was trained with; --to takes the model's own"
        )
    if model_parallel is not None and target != _NEOX:
        raise click.UsageError("--model-parallel is for --to gpt-neox")
    from gpt_neox_japanese.files.model_directory import find_model, find_tokenizer

    if vocabulary is not None:
        from gpt_neox_japanese.interop.neox_checkpoints import from_neox

        with_progress = _progress("parts")
        size = from_neox(Path(model), find_tokenizer(vocabulary), output, progress=with_progress)
    elif target == _NEOX:
        from gpt_neox_japanese.interop.neox_checkpoints import to_neox

        ranks = model_parallel or 1
        with_progress = _progress("parts")
        size = to_neox(find_model(model), output, model_parallel=ranks, progress=with_progress)
    else:
        from gpt_neox_japanese.files.tensor_files import read_tensors
        from gpt_neox_japanese.quantization.convert import convert

        assert target is not None
        size = convert(
            find_model(model),
            output,
            _BITS[target],
            read=read_tensors,
            progress=_progress("MB", 1e-6),
        )
    if sys.stderr.isatty():
        click.echo("\r", nl=False, err=True)
    click.echo(f"{output}: {size / 1e6:,.1f} MB of weights")


def _progress(unit: str, factor: float = 1) -> Callable[[int, int], None] | None:
    """What shows on a terminal how much is done."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, whole: int) -> None:
        text = f"\r{done * factor:,.0f} of {whole * factor:,.0f} {unit}"
        click.echo(text, nl=False, err=True)

    return show
