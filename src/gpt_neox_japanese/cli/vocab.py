"""`neox-ja vocab`: build a vocabulary from texts, or look at one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpt_neox_japanese.cli.options.number_types import Whole
from gpt_neox_japanese.cli.options.shared import (
    PATH,
    PATH_OR_URL,
    held_out_options,
    layout_options,
    tokenizer_option,
)

if TYPE_CHECKING:
    from gpt_neox_japanese.corpus import Document, Layout
    from gpt_neox_japanese.files.remote import AnyPath
    from gpt_neox_japanese.tokenizer.build.statistics import Coverage, TextStatistics

__all__ = ["command"]

_FILES = ("vocab.txt", "emoji.json", "tokenizer_config.json")


@click.group()
def command() -> None:
    """Build or inspect a vocabulary."""


@command.command()
@click.argument("corpus", nargs=-1, required=True, type=PATH_OR_URL)
@click.option("--size", type=Whole(), required=True, help="Number of ids, at most.")
@click.option(
    "--output",
    type=PATH,
    required=True,
    help="Directory to make; it must not hold a vocabulary already.",
)
@held_out_options(
    "Fraction of the text not to look at: what `prepare` holds out.",
    "File or directory of CORPUS not to look at; may be repeated.",
)
@layout_options
def build(
    corpus: tuple[Path | str, ...],
    size: int,
    output: Path,
    held_out: float | None,
    held_out_files: tuple[Path | str, ...],
    text_field: str,
    id_field: str,
    split_lines: bool,
) -> None:
    """Make vocab.txt, emoji.json and tokenizer_config.json from CORPUS.

    CORPUS are files and directories: .txt (a file is a document) and .jsonl (a line is a
    document: {"text": …, "id": …}), each also as .gz or .zst, and .parquet (a row is a document);
    here, or by a URL such as s3://bucket/folder.
    """
    for name in _FILES:
        if (output / name).exists():
            raise click.UsageError(f"{str(output / name)!r} exists already; name a new directory")
    if output.exists() and not output.is_dir():
        raise click.UsageError(f"{str(output)!r} is a file; name a directory")

    from gpt_neox_japanese.files.outputs import check_writable, target

    check_writable(output)

    from gpt_neox_japanese.corpus import Layout, corpus_files, without
    from gpt_neox_japanese.tokenizer.build.builder import build_vocabulary
    from gpt_neox_japanese.tokenizer.codec import Codec

    own = corpus_files(held_out_files) if held_out_files else []
    fraction = held_out if held_out is not None else 0.0 if own else 0.01
    layout = Layout(text_field, id_field, split_lines)
    texts = _training_texts(without(corpus_files(corpus), own), layout, fraction)
    vocabulary = build_vocabulary(texts, size)
    Codec(vocabulary, legacy=False).save(target(output))
    if len(vocabulary) < size:
        click.echo(f"fewer than {size}: no other piece is in the corpus twice", err=True)
    click.echo(f"{len(vocabulary)} ids in {output}")


@command.command()
@click.argument("texts", nargs=-1, type=PATH_OR_URL, metavar="[TEXT-FILE...]")
@tokenizer_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@layout_options
def show(
    texts: tuple[Path | str, ...],
    tokenizer: str | None,
    as_json: bool,
    text_field: str,
    id_field: str,
    split_lines: bool,
) -> None:
    """Print what a vocabulary covers, and how it does on TEXT-FILEs.

    Dead ids are those that no text has: of the forms that fit, tokenizing takes the one with the
    smallest id, and theirs never is.
    """
    from dataclasses import asdict

    from gpt_neox_japanese.assets import default_model_directory
    from gpt_neox_japanese.corpus import Layout, corpus_files
    from gpt_neox_japanese.tokenizer.build.statistics import coverage, text_statistics
    from gpt_neox_japanese.tokenizer.codec import Codec

    codec = Codec.from_pretrained(tokenizer or default_model_directory())
    found = coverage(codec)
    used = None
    if texts:
        layout = Layout(text_field, id_field, split_lines)
        documents = _read_with_progress(corpus_files(texts), layout)
        used = text_statistics(codec, (document.text for document in documents))
    fingerprint = codec.fingerprint
    if as_json:
        usage_fields = {"texts": asdict(used)} if used else {}
        fields = {**asdict(found), "fingerprint": fingerprint, **usage_fields}
        click.echo(json.dumps(fields, ensure_ascii=False))
        return
    _echo_coverage(found, fingerprint, used)
    if used:
        _echo_text_statistics(used)


def _echo_coverage(found: Coverage, fingerprint: str, used: TextStatistics | None) -> None:
    click.echo(f"ids          {found.ids:,}")
    click.echo(f"forms        {found.forms:,}")
    click.echo(f"emoji        {found.emoji:,}")
    click.echo(f"dead ids     {found.dead:,} of {found.ordinary:,} that are no tags")
    click.echo(f"fingerprint  {fingerprint}")
    click.echo(f"\n{'kind':14}{'ids':>8}{'forms':>9}{'dead':>8}" + "  of tokens" * bool(used))
    for kind in found.kinds:
        dead = "" if kind.dead is None else f"{kind.dead:,}"
        share = f"{used.kind_shares[kind.name]:>11.2%}" if used else ""
        click.echo(f"{kind.name:14}{kind.ids:>8,}{kind.forms:>9,}{dead:>8}{share}".rstrip())


def _echo_text_statistics(used: TextStatistics) -> None:
    click.echo(f"\ncharacters            {used.characters:,}")
    click.echo(f"tokens                {used.tokens:,}")
    click.echo(f"characters per token  {used.characters_per_token:.4f}")
    click.echo(f"byte tokens           {used.byte_share:.4%}")
    click.echo(f"ids used              {used.used:,}")


def _training_texts(files: Sequence[AnyPath], layout: Layout, held_out: float) -> Iterator[str]:
    """What `prepare` trains on; nothing is read before the first text is asked for."""
    from gpt_neox_japanese.corpus import choose_held_out

    choice = choose_held_out(files, layout, held_out)
    for document in _read_with_progress(files, layout):
        text, _ = choice.split(document)
        if text:
            yield text


def _read_with_progress(files: Sequence[AnyPath], layout: Layout) -> Iterator[Document]:
    """The documents of a corpus, with a bar on stderr that counts the bytes of its files."""
    from tqdm import tqdm

    from gpt_neox_japanese.corpus import read_blocks
    from gpt_neox_japanese.errors import CorpusError
    from gpt_neox_japanese.files.remote import file_size

    total = sum(map(file_size, files))
    with tqdm(total=total, desc="read", unit="B", unit_scale=True) as progress:
        for block in read_blocks(files, layout):
            for document in block.documents():
                if isinstance(document, CorpusError):
                    raise document
                yield document
            progress.update(block.size)
