"""`neox-ja evaluate`: how well a model predicts a text, and whether it knows how one goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from gpt_neox_japanese.cli.options.number_types import Whole
from gpt_neox_japanese.cli.options.shared import MODEL, PATH_OR_URL

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint

__all__ = ["command"]


@click.command()
@click.option(
    "--model",
    "models",
    type=MODEL,
    multiple=True,
    metavar="PATH_OR_ID",
    help="Model directory or Hub id; may be repeated, to see several side by side.  [default: the "
    "model in this package]",
)
@click.option(
    "--data",
    required=True,
    multiple=True,
    type=PATH_OR_URL,
    help="Text: .txt, .jsonl, each also .gz or .zst, .parquet, or a directory of them, here or by "
    "a URL; may be repeated.",
)
@click.option("--limit", type=Whole(min=1), help="Maximum number of documents.")
@click.option(
    "--stride",
    type=Whole(min=1),
    help="Tokens that each window predicts.  [default: half the model's window]",
)
@click.option(
    "--batch-size",
    type=Whole(min=1),
    default=8,
    show_default=True,
    help="Windows per forward pass.",
)
@click.option(
    "--cloze",
    "questions",
    type=Whole(min=1),
    help="Ask this many cloze questions instead: which of four continuations is the true one?",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each model.")
def command(
    models: tuple[str, ...],
    data: tuple[Path | str, ...],
    limit: int | None,
    stride: int | None,
    batch_size: int,
    questions: int | None,
    as_json: bool,
) -> None:
    """Measure how well a model predicts Japanese text.

    Bits per character and per byte can be compared between tokenizers, perplexity per token
    cannot; one that no number holds is null in JSON. `folded` is the fraction of characters that
    the tokenizer takes for others, such as variants of a kanji: their difference is counted, but
    not predicted.

    --cloze tells the fraction of right answers, the interval from low to high in which it lies
    with 95 % certainty, and what guessing gives.
    """
    from itertools import islice

    from transformers.utils.logging import disable_progress_bar

    from gpt_neox_japanese.corpus import corpus_files, read_documents
    from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint

    disable_progress_bar()
    files = corpus_files(data)
    # All are looked for before the first is measured.
    checkpoints = [Checkpoint.open(model) for model in models or ("default",)]

    def texts() -> Iterator[str]:
        return islice((document.text for document in read_documents(files)), limit)

    found = []
    for name, checkpoint in zip(models or ("default",), checkpoints, strict=True):
        values = (
            _measure(checkpoint, texts, stride, batch_size)
            if questions is None
            else _ask(checkpoint, texts, questions)
        )
        found.append(values)
        if as_json:
            # JSON knows no infinity: a perplexity that no float holds is null.
            numbers = {k: v if math.isfinite(v) else None for k, v in values.items()}
            named = {"model": str(name), **numbers} if len(checkpoints) > 1 else numbers
            click.echo(json.dumps(named, allow_nan=False))
    if not as_json:
        _print(models, found)


def _measure(
    checkpoint: Checkpoint, texts: Callable[[], Iterator[str]], stride: int | None, batch_size: int
) -> dict[str, float]:
    from dataclasses import asdict

    from tqdm import tqdm

    from gpt_neox_japanese.evaluation.bits_per_character import bits_per_character
    from gpt_neox_japanese.evaluation.variant_folding import folded_characters

    with tqdm(texts(), desc="evaluate", unit=" documents") as progress:
        bits = bits_per_character(
            _load(checkpoint), checkpoint.codec, progress, stride=stride, batch_size=batch_size
        )
    folded, characters = folded_characters(checkpoint.codec, texts())
    return {**asdict(bits), "folded": folded / characters}


def _ask(
    checkpoint: Checkpoint, texts: Callable[[], Iterator[str]], questions: int
) -> dict[str, float]:
    from dataclasses import asdict

    from tqdm import tqdm

    from gpt_neox_japanese.evaluation.cloze import cloze, make_questions

    asked = tqdm(make_questions(texts(), questions), desc="cloze", unit=" questions")
    return asdict(cloze(_load(checkpoint), checkpoint.codec, asked))


def _load(checkpoint: Checkpoint) -> PreTrainedModel:
    import torch

    from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM

    network = GPTNeoXJapaneseForCausalLM.from_pretrained(
        checkpoint.directory, dtype=torch.float32, local_files_only=True
    )
    if torch.cuda.is_available():
        cast(torch.nn.Module, network).cuda()
    return network


def _print(models: Sequence[str], found: Sequence[Mapping[str, float]]) -> None:
    """A row for each number, a column for each model, with its name if there are several."""
    names = [Path(model).name for model in models]
    width = max(14, *(len(name) + 2 for name in names)) if len(found) > 1 else 14
    if len(found) > 1:
        click.echo(" " * 20 + "".join(f"{name:>{width}}" for name in names))
    for name in found[0]:
        shown = (
            f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
            for value in (values[name] for values in found)
        )
        click.echo(f"{name.replace('_', ' '):20}" + "".join(f"{text:>{width}}" for text in shown))
