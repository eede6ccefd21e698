"""`neox-ja tokenize`: text → ids."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gpt_neox_japanese.cli.texts import read_text

__all__ = ["command"]


@click.command()
@click.argument("text", required=False)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Directory with vocab.txt and emoji.json.  [default: the embedded model]",
)
@click.option("--ids", "only_ids", is_flag=True, help="Print the ids alone, on one line.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: ids, tokens, offsets.")
def command(text: str | None, model: Path | None, only_ids: bool, as_json: bool) -> None:
    """Show the tokens of TEXT (or standard input, for `-`): id, characters, source text.

    Tags spelled out in TEXT, such as <|endoftext|>, are read as text.
    """
    from gpt_neox_japanese.assets import default_model_directory
    from gpt_neox_japanese.tokenizer.codec import Codec

    source = read_text(text, "text")
    codec = Codec.load(model or default_model_directory())
    ids, offsets = codec.encode_with_offsets(source)
    names = [codec.vocabulary.surfaces[i][0] for i in ids]
    if as_json:
        click.echo(
            json.dumps({"ids": ids, "tokens": names, "offsets": offsets}, ensure_ascii=False)
        )
    elif only_ids:
        click.echo(" ".join(map(str, ids)))
    else:
        for token_id, name, (start, end) in zip(ids, names, offsets, strict=True):
            click.echo(f"{token_id}\t{name}\t{start}-{end}")
