"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gpt_neox_japanese.cli.number_types import Whole
from gpt_neox_japanese.cli.stdin import TEXT

__all__ = ["layout_options", "run_options", "vocabulary_option"]

_Command = Callable[..., Any]

vocabulary_option = click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Directory with vocab.txt and emoji.json.  [default: the embedded model]",
)


def layout_options(command: _Command) -> _Command:
    """Where in the files the documents are: `text_field`, `id_field`, `split_lines`."""
    return _with(
        command,
        click.option(
            "--text-field",
            type=TEXT,
            default="text",
            show_default=True,
            help="JSON field or Parquet column of the text.",
        ),
        click.option(
            "--id-field",
            type=TEXT,
            default="id",
            show_default=True,
            help="JSON field or Parquet column of the document's id; it may be missing.",
        ),
        click.option(
            "--split-lines", is_flag=True, help="In .txt files, every line is a document."
        ),
    )


def run_options(command: _Command) -> _Command:
    """How a long run goes: `on_error`, `workers`, `resume`."""
    return _with(
        command,
        click.option(
            "--on-error",
            type=click.Choice(["stop", "skip"]),
            default="stop",
            show_default=True,
            help="What a broken line does: end the run, or be reported and passed over.",
        ),
        click.option(
            "--workers",
            type=Whole(min=1),
            help="Processes at most; the result is the same.  [default: one for each CPU]",
        ),
        click.option(
            "--resume", is_flag=True, help="Continue this run if it was interrupted before."
        ),
    )


def _with(command: _Command, *options: Callable[[_Command], _Command]) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command
