"""`neox-ja tokenize`: text → ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from gpt_neox_japanese.cli.options.shared import (
    PATH,
    PATH_OR_URL,
    layout_options,
    run_options,
    tokenizer_option,
)
from gpt_neox_japanese.cli.options.stdin import TEXT, read_text

__all__ = ["command"]


@click.command()
@click.argument("text", nargs=-1, type=click.Path(), metavar="[TEXT | - | FILE...]")
@tokenizer_option
@click.option("--ids", "only_ids", is_flag=True, help="Print the ids alone, on one line.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: ids, tokens, offsets.")
@click.option(
    "--output",
    type=PATH,
    help="Tokenize FILEs into this: a .jsonl file, or a directory of numpy arrays.",
)
@layout_options
@run_options
@click.pass_context
def command(
    context: click.Context,
    /,
    text: tuple[str, ...],
    tokenizer: str | None,
    only_ids: bool,
    as_json: bool,
    output: Path | None,
    **options: Any,
) -> None:
    """Show the tokens of TEXT (or standard input, for `-`): id, characters, source text.

    With --output, tokenize every document of FILEs and directories: .txt (a file is a document),
    .jsonl (a line is a document: {"text": …, "id": …}), each also as .gz or .zst, and .parquet (a
    row is a document); here, or by a URL such as s3://bucket/folder. A .jsonl output holds a line
    a document, {"id": …, "ids": […]}; a directory holds ids.npy, bounds.npy and documents.jsonl:
    document i is ids[bounds[i]:bounds[i + 1]].

    Tags spelled out in TEXT, such as <|endoftext|>, are read as text.
    """
    from gpt_neox_japanese.assets import default_model_directory

    tokenizer = tokenizer or str(default_model_directory())
    if output is not None:
        if only_ids or as_json or not text:
            raise click.UsageError("--output takes FILEs, and neither --ids nor --json")
        files = tuple(PATH_OR_URL.convert(each, None, context) for each in text)
        _tokenize_files(files, tokenizer, output, **options)
        return
    _refuse_file_options(context, options)
    if len(text) > 1:
        raise click.UsageError(
            f"{len(text)} texts given; quote one text, or name --output to tokenize files"
        )
    _show_tokens(read_text(TEXT(text[0]) if text else None, "text"), tokenizer, only_ids, as_json)


def _show_tokens(text: str, tokenizer: str, only_ids: bool, as_json: bool) -> None:
    from gpt_neox_japanese.tokenizer.codec import Codec

    codec = Codec.from_pretrained(tokenizer)
    encoding = codec.encode_with_offsets(text)
    ids, offsets = encoding.ids.tolist(), encoding.offsets.tolist()
    names = list(map(codec.id_to_token, ids))
    if as_json:
        click.echo(
            json.dumps({"ids": ids, "tokens": names, "offsets": offsets}, ensure_ascii=False)
        )
    elif only_ids:
        click.echo(" ".join(map(str, ids)))
    else:
        for token_id, name, (start, end) in zip(ids, names, offsets, strict=True):
            click.echo(f"{token_id}\t{name}\t{start}-{end}")


def _tokenize_files(
    files: tuple[Path | str, ...],
    tokenizer: str,
    output: Path,
    *,
    text_field: str,
    id_field: str,
    split_lines: bool,
    **run: Any,
) -> None:
    from gpt_neox_japanese.corpus import Layout
    from gpt_neox_japanese.tokenization.arrays import tokenize_corpus

    layout = Layout(text_field, id_field, split_lines)
    totals = tokenize_corpus(files, tokenizer, output, layout=layout, **run)
    click.echo(
        f"{totals.documents:,} documents, {totals.characters:,} characters, "
        f"{totals.tokens:,} tokens, {totals.skipped:,} skipped"
    )


def _refuse_file_options(context: click.Context, names: Any) -> None:
    for name in names:
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name.replace('_', '-')} needs --output, and FILEs")
