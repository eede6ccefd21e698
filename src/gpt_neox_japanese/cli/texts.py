"""What a user typed as text: an argument, or standard input."""

from __future__ import annotations

import sys

import click

__all__ = ["read_text"]


def read_text(argument: str | None, name: str) -> str:
    """The argument itself, or standard input for `-` and where a pipe stands in its place.

    Raises:
        click.UsageError: Nothing was given, or the input is not UTF-8.
    """
    if argument is not None and argument != "-":
        return argument
    if sys.stdin is None or (argument is None and sys.stdin.isatty()):
        raise click.UsageError(f"no {name} given; write it after the command, or pipe it in")
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"standard input is not UTF-8 (byte {data[error.start]:#04x} at {error.start})"
        ) from error
