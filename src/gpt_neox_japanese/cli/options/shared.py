"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gpt_neox_japanese.cli.options.help_sections import options_of
from gpt_neox_japanese.cli.options.number_types import Real, Whole
from gpt_neox_japanese.cli.options.stdin import TEXT
from gpt_neox_japanese.files.remote import is_url, without_secrets

__all__ = [
    "MODEL",
    "PATH",
    "PATH_OR_URL",
    "generator_options",
    "held_out_options",
    "layout_options",
    "network_options",
    "renamed_option",
    "required_tokenizer_option",
    "run_options",
    "tokenizer_option",
]

_Command = Callable[..., Any]

_DTYPES = ("float32", "bfloat16", "float16")


class _Path(click.Path):
    """A path that names something. To Python, an empty one, of a variable not set, is `.`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path."""
        if str(value) == "" or "\0" in str(value):
            self.fail(f"{value!r} names nothing; give a path.", param, ctx)
        if is_url(value):
            self.fail(
                f"{without_secrets(value)} is a URL; give a path on this machine.", param, ctx
            )
        return super().convert(value, param, ctx)


class _PathOrURL(_Path):
    """A path, or a text that is a URL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, or the URL as it is."""
        return value if is_url(value) else super().convert(value, param, ctx)


MODEL = _Path()
"""A model's directory, Hub id, or `default`, as `find_model` and `find_tokenizer` take it."""

PATH = _Path(path_type=Path)
"""A file or a directory."""

PATH_OR_URL = _PathOrURL(path_type=Path)
"""A file or a directory here or elsewhere; a URL is a text."""


class _WithOldName(click.Option):
    """An option whose second name still works, and is not shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """What `--help` shows."""
        return f"{self.opts[0]} {self.metavar}", self.help or ""


tokenizer_option = click.option(
    "--tokenizer",
    "--model",
    "tokenizer",
    type=MODEL,
    cls=_WithOldName,
    metavar="PATH_OR_ID",
    help="Vocabulary: a directory with vocab.txt and emoji.json, or a Hub id.  [default: the "
    "package's own]",
)


def _need_tokenizer(
    context: click.Context, _option: click.Parameter, value: str | None
) -> str | None:
    # Not click's `required`, which cannot say how the vocabulary in the package is named.
    if value is None and not context.params.get("merge"):  # the parts have one
        raise click.UsageError(
            "--tokenizer is missing; name the vocabulary that the model is to have: a directory, "
            "a Hub id, or `--tokenizer default` for the one in this package"
        )
    return value


required_tokenizer_option = click.option(
    "--tokenizer",
    type=MODEL,
    metavar="PATH_OR_ID",
    callback=_need_tokenizer,
    help="Vocabulary that the model is to have: a directory with vocab.txt and emoji.json, a Hub "
    "id, or `default` for the one in this package.  [required, but for --merge]",
)


def renamed_option(old: str, new: str) -> Callable[[_Command], _Command]:
    """A hidden option that is refused with the name it has now."""

    def refuse(_context: click.Context, _option: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError(f"{old} is called {new} here; write {new} {value}")

    return click.option(
        old, type=MODEL, hidden=True, expose_value=False, is_eager=True, callback=refuse
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


def held_out_options(fraction_help: str, files_help: str) -> Callable[[_Command], _Command]:
    """Which text is kept out of training, the same everywhere: `held_out`, `held_out_files`.

    Args:
        fraction_help: What the command does with a fraction of the text.
        files_help: What it does with files of their own.
    """
    return lambda command: _with(
        command,
        click.option(
            "--held-out",
            type=Real(0, 1, max_open=True),
            help=f"{fraction_help}  [default: 0.01, or 0 with --held-out-files]",
        ),
        click.option("--held-out-files", type=PATH_OR_URL, multiple=True, help=files_help),
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


def network_options(command: _Command) -> _Command:
    """Which model, and where it runs: `model`, `dtype`, `device`, `threads`."""
    option = options_of("What runs")
    return _with(
        command,
        option(
            "--model",
            type=MODEL,
            default="default",
            help="Directory or Hub id of a model.  [default: the one that comes with the package]",
        ),
        option("--dtype", type=click.Choice(_DTYPES), default="float32", show_default=True),
        option(
            "--device",
            type=TEXT,
            default="cpu",
            show_default=True,
            help="cpu, cuda, cuda:1, mps, …",
        ),
        option("--threads", type=Whole(1, 1024), help="Of a CPU.  [default: one on each core]"),
    )


def generator_options(command: _Command) -> _Command:
    """What writes, and on what: `network_options`, and `prompt_lookup`."""
    return _with(
        command,
        network_options,
        options_of("What runs")(
            "--prompt-lookup/--no-prompt-lookup",
            help="Prompt lookup decoding: draft tokens from the text itself. The text stays the "
            "same.",
        ),
    )


def _with(command: _Command, *options: Callable[[_Command], _Command]) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command
