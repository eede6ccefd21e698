"""`neox-ja prepare`: corpus → token shards, in parts if need be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gpt_neox_japanese.cli.options.shared import (
    PATH,
    PATH_OR_URL,
    held_out_options,
    layout_options,
    renamed_option,
    required_tokenizer_option,
    run_options,
)
from gpt_neox_japanese.cli.options.stdin import TEXT

if TYPE_CHECKING:
    from gpt_neox_japanese.tokenization.encode_corpus import OnError

__all__ = ["command"]

_NOTHING_HELD_OUT = "nothing is held out, so no measurement can be made"


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
@held_out_options(
    "Fraction of the text kept out of training, to evaluate with; of little text at least 20,000 "
    "characters or a tenth.",
    "File or directory of text to evaluate with, of which nothing is trained on; may be repeated.",
)
@layout_options
@run_options
@click.option(
    "--conversations",
    is_flag=True,
    help='CORPUS holds conversations, a .jsonl line each: {"messages": [{"role": …, '
    '"content": …}, …]} or {"prompt": …, "completion": …}. Only answers are learned.',
)
@click.option(
    "--chat-template",
    type=PATH,
    help="Jinja template of conversations.  [default: the tokenizer's, or the one in this package]",
)
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
    held_out: float | None,
    held_out_files: tuple[Path | str, ...],
    text_field: str,
    id_field: str,
    split_lines: bool,
    on_error: OnError,
    workers: int | None,
    resume: bool,
    part: tuple[int, int] | None,
    merge: bool,
    conversations: bool,
    chat_template: Path | None,
) -> None:
    """Tokenize CORPUS into shards that `neox-ja train` reads.

    CORPUS are files and directories: .txt (a file is a document) and .jsonl (a line is a
    document: {"text": …, "id": …}), each also as .gz or .zst, and .parquet (a row is a document);
    here, or by a URL such as s3://bucket/folder.
    """
    from gpt_neox_japanese.corpus import Layout
    from gpt_neox_japanese.training.data.merge import merge as merge_parts
    from gpt_neox_japanese.training.data.prepare import prepare

    if conversations:
        _refuse(context, "--conversations are prepared as a whole", "part", "merge")
        _refuse(context, "--conversations have a form of their own", "text_field", "split_lines")
        _refuse(context, "of --conversations only --held-out is kept", "held_out_files")
        _prepare_conversations(
            corpus,
            tokenizer,
            output,
            chat_template=chat_template,
            held_out=held_out,
            resume=resume,
            layout=Layout(text_field, id_field),
            on_error=on_error,
            workers=workers,
        )
        return
    if chat_template is not None:
        raise click.UsageError("--chat-template is for --conversations; give both")
    if merge:
        names = {option.name or "" for option in context.command.params}
        read = names - {"corpus", "output", "merge", "resume"}
        _refuse(context, "--merge takes the parts as they are", *read)
        manifest = merge_parts(corpus, output, resume=resume)
    else:
        manifest = prepare(
            corpus,
            tokenizer,
            output,
            held_out=held_out,
            held_out_files=held_out_files,
            layout=Layout(text_field, id_field, split_lines),
            on_error=on_error,
            workers=workers,
            resume=resume,
            part=part,
        )
    both = manifest.train, manifest.held_out
    characters = sum(split.characters for split in both)
    for name, split in zip(("train", "held out"), both, strict=True):
        click.echo(
            f"{name}: {split.documents:,} documents, "
            f"{split.characters:,} characters ({split.characters / max(characters, 1):.1%}), "
            f"{split.tokens:,} tokens"
        )
    if part is None and not manifest.held_out.tokens and held_out != 0:
        click.echo(
            f"{_NOTHING_HELD_OUT}; name a file of its own with --held-out-files, or a larger "
            "--held-out",
            err=True,
        )
    if manifest.skipped:
        click.echo(f"skipped: {manifest.skipped:,} broken documents")


def _prepare_conversations(*arguments: Any, **options: Any) -> None:
    from gpt_neox_japanese.training.data.conversations import prepare_conversations

    made = prepare_conversations(*arguments, **options)
    for name, split in (("train", made.train), ("held out", made.held_out)):
        click.echo(
            f"{name}: {split.conversations:,} conversations, {split.tokens:,} tokens, of which "
            f"{split.answer_tokens:,} are answers"
        )
    if not made.held_out.tokens and options["held_out"] != 0:
        click.echo(
            f"{_NOTHING_HELD_OUT}; give more conversations, or a larger --held-out", err=True
        )
    if made.skipped:
        click.echo(f"skipped: {made.skipped:,} broken conversations")


def _refuse(context: click.Context, reason: str, *names: str) -> None:
    """Refuse options that were given, though the others leave them nothing to say."""
    for option in context.command.params:
        name = option.name or ""
        if name in names and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{reason}; leave out {option.opts[0]}")
