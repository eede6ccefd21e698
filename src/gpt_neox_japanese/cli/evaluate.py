"""`neox-ja evaluate`: bits per character, bits per byte and perplexity of a text."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

__all__ = ["command"]


@click.command()
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Checkpoint directory.  [default: the embedded model]",
)
@click.option(
    "--data",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="Text: .txt, .jsonl, each also .gz or .zst, or a directory of them; may be repeated.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many documents.")
@click.option(
    "--stride",
    type=click.IntRange(min=1),
    help="Tokens that each window predicts.  [default: half the model's window]",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    model: Path | None,
    data: tuple[Path, ...],
    limit: int | None,
    stride: int | None,
    batch_size: int,
    as_json: bool,
) -> None:
    """Measure how well a model predicts Japanese text."""
    import json
    from dataclasses import asdict
    from itertools import islice

    import torch
    from tqdm import tqdm
    from transformers.utils.logging import disable_progress_bar

    from gpt_neox_japanese.corpus import corpus_files, read_documents
    from gpt_neox_japanese.evaluation.bits import bits_per_character
    from gpt_neox_japanese.inference.checkpoint import Checkpoint
    from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM

    files = corpus_files(data)
    checkpoint = Checkpoint.open(model)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    network = GPTNeoXJapaneseForCausalLM.from_pretrained(
        checkpoint.directory, dtype=torch.float32, local_files_only=True
    )
    if torch.cuda.is_available():
        cast(torch.nn.Module, network).cuda()
    documents = islice(read_documents(files), limit)
    with tqdm(documents, desc="evaluate", unit=" documents") as progress:
        bits = bits_per_character(
            network,
            checkpoint.codec,
            (document.text for document in progress),
            stride=stride,
            batch_size=batch_size,
        )
    if as_json:
        click.echo(json.dumps(asdict(bits)))
        return
    for name, value in asdict(bits).items():
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
        click.echo(f"{name.replace('_', ' '):20}{shown:>14}")
