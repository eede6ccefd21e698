"""`neox-ja vocab`: build a vocabulary from texts, or look at one."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]


@click.group()
def command() -> None:
    """Build or inspect a vocabulary."""


@command.command()
@click.argument("corpus", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--size", type=int, required=True, help="Number of ids.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Directory to make; it must not hold a vocabulary already.",
)
@click.option(
    "--held-out",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.01,
    show_default=True,
    help="Fraction of the documents not to look at: the ones that `prepare` holds out.",
)
def build(corpus: tuple[Path, ...], size: int, output: Path, held_out: float) -> None:
    """Make vocab.txt, emoji.json and tokenizer_config.json from CORPUS.

    CORPUS are files and directories: .txt (a file is a document) and .jsonl (a line is a
    document: {"text": …, "id": …}), each also as .gz or .zst.
    """
    if (output / "vocab.txt").exists():
        raise click.UsageError(f"{str(output)!r} holds a vocabulary already; name a new directory")

    from tqdm import tqdm

    from gpt_neox_japanese.corpus import is_held_out, read_documents
    from gpt_neox_japanese.tokenizer.builder import build_vocabulary
    from gpt_neox_japanese.tokenizer.codec import Codec

    documents = tqdm(read_documents(corpus), desc="documents", unit="", smoothing=0)
    texts = (d.text for d in documents if not is_held_out(d.id, held_out))
    vocabulary = build_vocabulary(texts, size)
    Codec(vocabulary, legacy=False).save(output)
    click.echo(f"{len(vocabulary)} ids in {output}")


@command.command()
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Directory with vocab.txt and emoji.json.  [default: the embedded model]",
)
def show(model: Path | None) -> None:
    """Print the size of a vocabulary and its fingerprint."""
    from gpt_neox_japanese.assets import default_model_directory
    from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

    vocabulary = Vocabulary.load(model or default_model_directory())
    forms = sum(map(len, vocabulary.surfaces))
    click.echo(f"ids          {len(vocabulary)}")
    click.echo(f"forms        {forms}")
    click.echo(f"emoji        {len(vocabulary.emoji)}")
    click.echo(f"fingerprint  {vocabulary.fingerprint}")
