"""`neox-ja prepare`: corpus → token shards."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]


@click.command()
@click.argument("corpus", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Directory with vocab.txt and emoji.json.  [default: the embedded model]",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory to make; it must not exist, or be empty.",
)
@click.option(
    "--held-out",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.01,
    show_default=True,
    help="Fraction of the documents kept out of training, to evaluate with.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes.  [default: one for each CPU]"
)
def command(
    corpus: tuple[Path, ...], model: Path | None, output: Path, held_out: float, workers: int | None
) -> None:
    """Tokenize CORPUS into shards that `neox-ja train` reads.

    CORPUS are files and directories: .txt (a file is a document) and .jsonl (a line is a
    document: {"text": …, "id": …}), each also as .gz or .zst.
    """
    from gpt_neox_japanese.assets import default_model_directory
    from gpt_neox_japanese.training.prepare import prepare

    manifest = prepare(
        corpus, model or default_model_directory(), output, held_out=held_out, workers=workers
    )
    for name, split in (("train", manifest.train), ("held out", manifest.held_out)):
        click.echo(
            f"{name}: {split.documents:,} documents, {split.characters:,} characters, "
            f"{split.tokens:,} tokens"
        )
