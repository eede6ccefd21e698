"""`neox-ja convert`: model directory → the same in another format, for us or others, and back."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt_neox_japanese.cli.options.number_types import Whole
from gpt_neox_japanese.cli.options.shared import MODEL, PATH, PATH_OR_URL
from gpt_neox_japanese.cli.options.stdin import TEXT

if TYPE_CHECKING:
    from torch import Tensor

    from gpt_neox_japanese.quantization.convert import Calibration

__all__ = ["command"]

_OWN_TEXT = "self"
_SMALL = 16e6  # bytes of weights, which a processor's cache holds
_BITS = {"bf16": 16, "int8": 8, "int4": 4}
_FOREIGN = ("gguf", "gpt-neox")


@click.command()
@click.argument("model", type=MODEL, metavar="MODEL")
@click.option(
    "--to",
    "target",
    type=click.Choice([*_BITS, *_FOREIGN]),
    help="Format of the matrices, where with int4 embeddings and head are int8; or gguf, a file "
    "for llama.cpp, ollama and LM Studio; or gpt-neox, a checkpoint of EleutherAI/gpt-neox.",
)
@click.option(
    "--calibration",
    multiple=True,
    type=PATH_OR_URL,
    metavar="FILE|self",
    help="With --to int4: text by which to round, which loses a third as much and takes longer. "
    "The files that `neox-ja evaluate` reads; may be repeated. Or `self`: MODEL writes it.",
)
@click.option(
    "--type",
    "kind",
    type=TEXT,
    help="With --to gguf: f32, f16, bf16, q8_0, q4_0 and others of llama.cpp's names.  [default: "
    "that of MODEL]",
)
@click.option(
    "--model-parallel",
    type=Whole(min=1, max=1024),
    metavar="N",
    help="With --to gpt-neox: over how many GPUs each layer is split.  [default: 1]",
)
@click.option(
    "--from",
    "source",
    type=click.Choice(_FOREIGN),
    help="MODEL is a GGUF file that `--to gguf` made, or a checkpoint of gpt-neox; the result is "
    "a model directory.",
)
@click.option(
    "--vocabulary",
    type=MODEL,
    metavar="PATH_OR_ID",
    help="With --from gpt-neox: the vocabulary that MODEL was trained with, a directory with "
    "vocab.txt and emoji.json, or a Hub id.",
)
@click.option(
    "--output",
    required=True,
    type=PATH,
    help="Directory to make, which must not exist, or be empty; with --to gguf, a file.",
)
def command(
    model: str,
    target: str | None,
    calibration: tuple[Path | str, ...],
    kind: str | None,
    model_parallel: int | None,
    source: str | None,
    vocabulary: str | None,
    output: Path,
) -> None:
    """Write MODEL, a directory or a Hub id, in another format.

    The result is a model directory again, which `neox-ja generate --model` and `from_pretrained`
    read, or what another program reads.
    """
    if (source is None) == (target is None):
        raise click.UsageError(
            "--to is missing; name the format, such as int8"
            if source is None
            else f"--from {source} makes a model directory; leave out --to {target}, convert that"
            " later"
        )
    if calibration and target != "int4":
        raise click.UsageError("--calibration is for --to int4; leave it out")
    own_text = Path(_OWN_TEXT) in calibration
    if own_text and len(calibration) > 1:
        raise click.UsageError(
            f"--calibration {_OWN_TEXT} stands alone; leave out the files, or it (a file of that"
            f" name is ./{_OWN_TEXT}.txt)"
        )
    if kind is not None and target != "gguf":
        raise click.UsageError(
            "--type is for --to gguf; --to bf16, int8 and int4 say it themselves, and gpt-neox"
            " keeps the model's"
        )
    if model_parallel is not None and target != "gpt-neox":
        raise click.UsageError("--model-parallel is for --to gpt-neox; leave it out")
    if (vocabulary is None) == (source == "gpt-neox"):
        raise click.UsageError(
            "--vocabulary is missing; name the directory with the vocab.txt and emoji.json that"
            " the model was trained with"
            if vocabulary is None
            else "--vocabulary is for --from gpt-neox; the others have one of their own"
        )

    def progress(done: int, whole: int) -> None:
        if terminal:
            unit, size = ("parts", 1.0) if "gpt-neox" in (target, source) else ("MB", 1e6)
            click.echo(f"\r{done / size:,.0f} of {whole / size:,.0f} {unit}", nl=False, err=True)

    terminal = sys.stderr.isatty()
    if source is not None:
        size = _from(source, Path(model), vocabulary, output, progress)
    else:
        assert target is not None
        size = _to(target, model, calibration, kind, model_parallel or 1, output, progress)
    if terminal:
        click.echo("\r", nl=False, err=True)
    click.echo(f"{output}: {size / 1e6:,.1f} MB" + " of weights" * (target != "gguf"))
    if target == "int4" and size < _SMALL:
        click.echo(
            "A model this small is read from the processor's cache, where int8 is faster and loses"
            " next to nothing: --to int8",
            err=True,
        )
    if calibration:
        config = json.loads((output / "config.json").read_text(encoding="utf-8"))
        found = config["quantization_config"]["calibration"]
        click.echo(
            f"calibrated on {found['tokens']:,} tokens; on a part kept aside the next token's odds"
            f" are {found['divergence_bits']:.4f} bits from those of {model} (KL divergence)"
        )


def _from(
    source: str,
    model: Path,
    vocabulary: str | None,
    output: Path,
    progress: Callable[[int, int], None],
) -> int:
    """Make a model directory, and return the number of bytes of its weights."""
    if source == "gguf":
        from gpt_neox_japanese.interop.gguf_reader import read_gguf

        return read_gguf(model, output, progress=progress)
    from gpt_neox_japanese.files.model_directory import find_tokenizer
    from gpt_neox_japanese.interop.neox_checkpoints import from_neox

    assert vocabulary is not None
    return from_neox(model, find_tokenizer(vocabulary), output, progress=progress)


def _to(
    target: str,
    model: str,
    calibration: tuple[Path | str, ...],
    kind: str | None,
    model_parallel: int,
    output: Path,
    progress: Callable[[int, int], None],
) -> int:
    """Write a model in another format, and return the number of bytes."""
    if target == "gguf":
        from gpt_neox_japanese.interop.gguf_writer import write_gguf

        return write_gguf(model, output, kind=kind and kind.lower(), progress=progress)
    from gpt_neox_japanese.files.model_directory import find_model
    from gpt_neox_japanese.files.tensor_files import read_tensors

    directory = find_model(model)
    if target == "gpt-neox":
        from gpt_neox_japanese.interop.neox_checkpoints import to_neox

        return to_neox(directory, output, model_parallel=model_parallel, progress=progress)
    from gpt_neox_japanese.quantization.convert import convert

    return convert(
        directory,
        output,
        _BITS[target],
        read=read_tensors,
        calibrate=partial(_calibrate, directory, calibration) if calibration else None,
        progress=progress,
    )


def _calibrate(
    directory: Path,
    calibration: tuple[Path | str, ...],
    config: dict[str, Any],
    tensors: Mapping[str, Tensor],
    allocation: dict[str, int],
) -> Calibration:
    """Begin the calibration that `convert` asks for."""
    from gpt_neox_japanese.corpus import corpus_files, read_documents
    from gpt_neox_japanese.inference.calibration_text import (
        NUM_TOKENS,
        windows_of_own_text,
        windows_of_texts,
    )
    from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint
    from gpt_neox_japanese.model.calibration import LayerwiseCalibration

    checkpoint = Checkpoint.open(directory)
    if calibration == (Path(_OWN_TEXT),):
        click.echo(f"The model writes {NUM_TOKENS:,} tokens to be calibrated on", err=True)
        windows = windows_of_own_text(checkpoint)
    else:
        documents = read_documents(corpus_files(calibration))
        windows = windows_of_texts(checkpoint, (document.text for document in documents))
    return LayerwiseCalibration(config, tensors, allocation, windows)
