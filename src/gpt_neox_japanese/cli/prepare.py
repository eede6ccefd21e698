"""`neox-ja prepare`: corpus → token shards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpt_neox_japanese.cli.options import (
    PATH,
    held_out_option,
    layout_options,
    renamed_option,
    required_tokenizer_option,
    run_options,
)

if TYPE_CHECKING:
    from gpt_neox_japanese.tokenization.encode_corpus import OnError

__all__ = ["command"]


@click.command()
@click.argument("corpus", nargs=-1, required=True, type=PATH)
@required_tokenizer_option
@renamed_option("--model", "--tokenizer")
@click.option(
    "--output",
    required=True,
    type=PATH,
    help="Directory to make; it must not exist, or be empty.",
)
@held_out_option("Fraction of the documents kept out of training, to evaluate with.")
@layout_options
@run_options
def command(
    corpus: tuple[Path, ...],
    tokenizer: str,
    output: Path,
    held_out: float,
    text_field: str,
    id_field: str,
    split_lines: bool,
    on_error: OnError,
    workers: int | None,
    resume: bool,
) -> None:
    """Tokenize CORPUS into shards that `neox-ja train` reads.

    CORPUS are files and directories: .txt (a file is a document) and .jsonl (a line is a
    document: {"text": …, "id": …}), each also as .gz or .zst, and .parquet (a row is a document).
    """
    from gpt_neox_japanese.corpus import Layout
    from gpt_neox_japanese.training.data.prepare import prepare

    manifest = prepare(
        corpus,
        tokenizer,
        output,
        held_out=held_out,
        layout=Layout(text_field, id_field, split_lines),
        on_error=on_error,
        workers=workers,
        resume=resume,
    )
    for name, split in (("train", manifest.train), ("held out", manifest.held_out)):
        click.echo(
            f"{name}: {split.documents:,} documents, {split.characters:,} characters, "
            f"{split.tokens:,} tokens"
        )
    if manifest.skipped:
        click.echo(f"skipped: {manifest.skipped:,} broken documents")
