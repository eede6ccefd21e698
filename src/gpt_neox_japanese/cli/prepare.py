"""`neox-ja prepare`: corpus → token shards, in parts if need be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from gpt_neox_japanese.cli.options.shared import (
    PATH_OR_URL,
    held_out_option,
    layout_options,
    renamed_option,
    required_tokenizer_option,
    run_options,
)
from gpt_neox_japanese.cli.options.stdin import TEXT

if TYPE_CHECKING:
    from gpt_neox_japanese.tokenization.encode_corpus import OnError

__all__ = ["command"]


def _read_part(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """2/8 → (2, 8)."""
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", value)
    index, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= index <= count:
        raise click.BadParameter(f"{value!r} is no part; write 1/8 for the first of eight")
    return index, count


@click.command()
@click.argument("corpus", nargs=-1, required=True, type=PATH_OR_URL)
@required_tokenizer_option
@renamed_option("--model", "--tokenizer")
@click.option(
    "--output",
    required=True,
    type=PATH_OR_URL,
    help="Directory to make; it must not exist, or be empty. A result for a URL is made here, and "
    "copied when it is complete.",
)
@held_out_option("Fraction of the documents kept out of training, to evaluate with.")
@layout_options
@run_options
@click.option(
    "--part",
    type=TEXT,
    metavar="I/N",
    callback=_read_part,
    help="Read only this part of CORPUS, of N parts, for a machine or a job each: I from 1 to N.",
)
@click.option(
    "--merge",
    is_flag=True,
    is_eager=True,
    help="CORPUS are the directories of all parts, which are put together as if one process had "
    "made them.",
)
@click.pass_context
def command(
    context: click.Context,
    corpus: tuple[Path | str, ...],
    tokenizer: str,
    output: Path | str,
    held_out: float,
    text_field: str,
    id_field: str,
    split_lines: bool,
    on_error: OnError,
    workers: int | None,
    resume: bool,
    part: tuple[int, int] | None,
    merge: bool,
) -> None:
    """Tokenize CORPUS into shards that `neox-ja train` reads.

    CORPUS are files and directories: .txt (a file is a document) and .jsonl (a line is a
    document: {"text": …, "id": …}), each also as .gz or .zst, and .parquet (a row is a document);
    here, or by a URL such as s3://bucket/folder.
    """
    from gpt_neox_japanese.corpus import Layout
    from gpt_neox_japanese.training.data.merge import merge as merge_parts
    from gpt_neox_japanese.training.data.prepare import prepare

    if merge:
        _refuse_others(context)
        manifest = merge_parts(corpus, output)
    else:
        manifest = prepare(
            corpus,
            tokenizer,
            output,
            held_out=held_out,
            layout=Layout(text_field, id_field, split_lines),
            on_error=on_error,
            workers=workers,
            resume=resume,
            part=part,
        )
    for name, split in (("train", manifest.train), ("held out", manifest.held_out)):
        click.echo(
            f"{name}: {split.documents:,} documents, {split.characters:,} characters, "
            f"{split.tokens:,} tokens"
        )
    if manifest.skipped:
        click.echo(f"skipped: {manifest.skipped:,} broken documents")


def _refuse_others(context: click.Context) -> None:
    """Refuse options that say how a corpus is read, where its parts were read already."""
    for option in context.command.params:
        name = option.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in ("corpus", "output", "merge"):
            raise click.UsageError(
                f"--merge takes the parts as they are; leave out {option.opts[0]}"
            )
