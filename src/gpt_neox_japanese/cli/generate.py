"""`neox-ja generate`: continue a text, shown as it is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gpt_neox_japanese.cli.texts import read_text

__all__ = ["command"]

_DTYPES = ("float32", "bfloat16", "float16")


@click.command()
@click.argument("prompt", required=False)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Directory of a model.  [default: the one that comes with the package]",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="How much to write at most.",
)
@click.option("--temperature", type=float, help="Below 1 is tamer, above 1 wilder, 0 is greedy.")
@click.option("--top-k", type=int, help="Choose among this many likeliest tokens; 0 is all.")
@click.option("--top-p", type=float, help="Choose among tokens that together are this likely.")
@click.option("--min-p", type=float, help="Drop tokens less likely than this share of the best.")
@click.option("--repetition-penalty", type=float, help="Above 1 avoids what was already said.")
@click.option(
    "--num-return-sequences",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many continuations.",
)
@click.option("--stop", multiple=True, help="End before this text. May be given several times.")
@click.option("--seed", type=click.IntRange(min=0), help="The same seed writes the same text.")
@click.option("--dtype", type=click.Choice(_DTYPES), default="float32", show_default=True)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, mps, …")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, when complete.")
def command(
    prompt: str | None,
    model: Path | None,
    max_new_tokens: int,
    num_return_sequences: int,
    stop: tuple[str, ...],
    seed: int | None,
    dtype: str,
    device: str,
    as_json: bool,
    **sampling: float | None,
) -> None:
    """Continue PROMPT (or standard input, for `-`) with a language model.

    Sampling options that are not given are the model's own (generation_config.json).
    """
    text = read_text(prompt, "prompt")
    if not text:
        raise click.UsageError("the prompt is empty; write at least one character")

    import torch

    from gpt_neox_japanese.inference.text import TextGenerator

    generator = TextGenerator.load(model, dtype=getattr(torch, dtype), device=device)
    options = _override(generator.sampling, sampling)
    for index in range(num_return_sequences):
        pieces = generator.stream(
            text,
            max_new_tokens=max_new_tokens,
            options=options,
            stop=stop,
            # Every continuation has a seed of its own, and the first one the seed that was given.
            seed=None if seed is None else seed + index,
        )
        if as_json:
            result = {"prompt": text, "text": "".join(pieces), "seed": seed and seed + index}
            click.echo(json.dumps(result, ensure_ascii=False))
        else:
            _show(text, pieces)


def _override(recommended: Any, given: dict[str, float | None]) -> Any:
    from dataclasses import replace

    return replace(recommended, **{k: v for k, v in given.items() if v is not None})


def _show(prompt: str, pieces: Iterator[str]) -> None:
    first = next(pieces, "")  # a prompt that cannot be continued should fail before it is shown
    click.echo(prompt + first, nl=False)
    for piece in pieces:
        click.echo(piece, nl=False)
    click.echo()
