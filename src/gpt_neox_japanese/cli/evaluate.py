"""`neox-ja evaluate`: how well a model predicts a text, and whether it knows how one goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import click

from gpt_neox_japanese.cli.options.number_types import Whole
from gpt_neox_japanese.cli.options.shared import MODEL, PATH_OR_URL

__all__ = ["command"]


@click.command()
@click.option(
    "--model",
    type=MODEL,
    metavar="PATH_OR_ID",
    help="Model directory or Hub id.  [default: the model in this package]",
)
@click.option(
    "--data",
    required=True,
    multiple=True,
    type=PATH_OR_URL,
    help="Text: .txt, .jsonl, each also .gz or .zst, or a directory of them, here or by a URL; may "
    "be repeated.",
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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    model: str | None,
    data: tuple[Path | str, ...],
    limit: int | None,
    stride: int | None,
    batch_size: int,
    questions: int | None,
    as_json: bool,
) -> None:
    """Measure how well a model predicts Japanese text.

    Bits per character and per byte can be compared between tokenizers, perplexity per token
    cannot. `folded` is the fraction of characters that the tokenizer takes for others, such as
    variants of a kanji: their difference is counted, but not predicted.
    """
    from dataclasses import asdict
    from itertools import islice

    import torch
    from tqdm import tqdm
    from transformers.utils.logging import disable_progress_bar

    from gpt_neox_japanese.corpus import corpus_files, read_documents
    from gpt_neox_japanese.evaluation.bits_per_character import bits_per_character
    from gpt_neox_japanese.evaluation.cloze import cloze, make_questions
    from gpt_neox_japanese.evaluation.variant_folding import folded_characters
    from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint
    from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM

    files = corpus_files(data)
    checkpoint = Checkpoint.open("default" if model is None else model)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    network = GPTNeoXJapaneseForCausalLM.from_pretrained(
        checkpoint.directory, dtype=torch.float32, local_files_only=True
    )
    if torch.cuda.is_available():
        cast(torch.nn.Module, network).cuda()

    def texts() -> islice[str]:
        return islice((document.text for document in read_documents(files)), limit)

    if questions is not None:
        asked = tqdm(make_questions(texts(), questions), desc="cloze", unit=" questions")
        _print(asdict(cloze(network, checkpoint.codec, asked)), as_json)
        return
    with tqdm(texts(), desc="evaluate", unit=" documents") as progress:
        bits = bits_per_character(
            network, checkpoint.codec, progress, stride=stride, batch_size=batch_size
        )
    folded, characters = folded_characters(checkpoint.codec, texts())
    _print({**asdict(bits), "folded": folded / characters}, as_json)


def _print(values: Mapping[str, float], as_json: bool) -> None:
    import json

    if as_json:
        click.echo(json.dumps(values))
        return
    for name, value in values.items():
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
        click.echo(f"{name.replace('_', ' '):20}{shown:>14}")
