"""`neox-ja detokenize`: ids → text."""

from __future__ import annotations

import click

from gpt_neox_japanese.checks import short_repr
from gpt_neox_japanese.cli.options.shared import tokenizer_option
from gpt_neox_japanese.cli.options.stdin import TEXT, read_text

__all__ = ["command"]

_MAX_DIGITS = 18  # more than any id has, and fewer than the kernels' integers hold


@click.command()
@click.argument("ids", nargs=-1, type=TEXT)
@tokenizer_option
def command(ids: tuple[str, ...], tokenizer: str | None) -> None:
    """Print the text of IDS, which are whole numbers separated by spaces or commas.

    `-` reads them from standard input.
    """
    from gpt_neox_japanese.assets import default_model_directory
    from gpt_neox_japanese.tokenizer.codec import Codec

    source = read_text(" ".join(ids) or None, "ids")
    codec = Codec.from_pretrained(tokenizer or default_model_directory())
    click.echo(codec.decode(_parse(source)))


def _parse(source: str) -> list[int]:
    numbers = []
    for word in source.replace(",", " ").split():
        if not word.isdecimal() or len(word) > _MAX_DIGITS:
            shown = short_repr(word)
            raise click.UsageError(f"{shown} is not an id; write whole numbers such as 5963 126")
        numbers.append(int(word))
    return numbers
