"""`neox-ja serve`: an OpenAI-compatible server, and a page for writers."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt_neox_japanese.cli.options.help_sections import GroupedCommand, options_of
from gpt_neox_japanese.cli.options.number_types import Real, Whole
from gpt_neox_japanese.cli.options.shared import PATH, generator_options
from gpt_neox_japanese.cli.options.stdin import TEXT
from gpt_neox_japanese.inference.scheduler import MAX_WAITING

if TYPE_CHECKING:
    from gpt_neox_japanese.server.service import ServedModel

__all__ = ["command"]

_LOCAL = ("127.0.0.1", "localhost", "::1")

_model = options_of("What runs")
_place = options_of("Where it listens, and to whom")
_limits = options_of("Limits")


def _key_or_environment(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> str | None:
    # Not click's `envvar`: to it an empty variable is none, and the server would ask for no key.
    return os.environ.get("NEOX_JA_API_KEY") if value is None else value


@click.command(cls=GroupedCommand)
@generator_options
@_model(
    "--served-model-name",
    type=TEXT,
    help="What clients call it.  [default: the Hub id, or the last part of the directory's path]",
)
@_model(
    "--slots",
    type=Whole(1, 4096),
    help="Texts that are written at once.  [default: 32 of a small model, else 8]",
)
@_model(
    "--chat-template",
    type=PATH,
    help="Jinja template for /v1/chat/completions.  [default: the model's own]",
)
@_place("--host", type=TEXT, default="127.0.0.1", show_default=True, help="0.0.0.0 is everywhere.")
@_place("--port", type=Whole(0, 65535), default=8000, show_default=True, help="0 is any free one.")
@_place(
    "--api-key",
    type=TEXT,
    callback=_key_or_environment,
    help="Clients must send it. Better given as NEOX_JA_API_KEY, which no list of processes shows.",
)
@_place(
    "--allow-host",
    type=TEXT,
    multiple=True,
    help="A name that the server is addressed by, beside addresses and localhost; * is any. May be "
    "given several times.",
)
@_place(
    "--allow-origin",
    type=TEXT,
    multiple=True,
    help="Another web page that may use it, as https://example.org; * is any. May be given several "
    "times.",
)
@_limits(
    "--max-queue",
    type=Whole(0, MAX_WAITING),
    default=256,
    show_default=True,
    help="Texts that may wait for a slot; who comes later is told when to try again.",
)
@_limits(
    "--max-body-size",
    type=Whole(min=1),
    default=4 << 20,
    show_default=True,
    help="Bytes of one request.",
)
@_limits(
    "--request-timeout",
    type=Real(min=0, min_open=True),
    default=600,
    show_default=True,
    help="Seconds of one request, from its place in the queue to its last token.",
)
@_limits(
    "--write-timeout",
    type=Real(min=0, min_open=True),
    default=30,
    show_default=True,
    help="Seconds that a client may leave what is sent unread.",
)
@click.option("--log-requests/--no-log-requests", help="A line on standard error for each request.")
def command(
    model: str,
    served_model_name: str | None,
    chat_template: Path | None,
    host: str,
    api_key: str | None,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    max_body_size: int,
    log_requests: bool,
    dtype: str,
    device: str,
    threads: int | None,
    slots: int | None,
    prompt_lookup: bool,
    **settings: Any,
) -> None:
    """Serve a model over HTTP, with OpenAI's names, and a page to write with.

    Without options: the model that comes with the package, for this machine alone. Ends at
    SIGTERM or Ctrl-C.
    """
    try:
        from gpt_neox_japanese.server.lifecycle import run_server
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"serving needs {error.name}: pip install 'gpt-neox-japanese[server]'"
        ) from error
    from gpt_neox_japanese.server.settings import ServerSettings

    checked = ServerSettings(
        model_name=served_model_name or _name_of(model),
        host=host,
        api_key=api_key,
        allowed_hosts=allow_host,
        allowed_origins=allow_origin,
        max_body_bytes=max_body_size,
        **settings,
    )
    _log_to_stderr(logging.INFO if log_requests else logging.WARNING)
    run = {
        "dtype": dtype,
        "device": device,
        "threads": threads,
        "slots": slots,
        "prompt_lookup": prompt_lookup,
    }
    load = _loader(model, checked.model_name, chat_template, run)

    def announce(address: str) -> None:
        _say(f"{checked.model_name} is ready: {address}")
        if host not in _LOCAL and api_key is None:
            _say(f"who reaches {host} may use this server; give --api-key, or --host 127.0.0.1")

    run_server(checked, load, announce)


def _loader(
    model: str, name: str, chat_template: Path | None, run: dict[str, Any]
) -> Callable[[], ServedModel]:
    """What opens the model: its first token is written before anybody is told that it is ready."""

    def load() -> ServedModel:
        from gpt_neox_japanese.files.model_directory import find_model
        from gpt_neox_japanese.inference.generator import TextGenerator
        from gpt_neox_japanese.server.service import ServedModel
        from gpt_neox_japanese.tokenizer.chat_template import ChatTemplate, find_chat_template

        template = find_chat_template(find_model(model), chat_template)
        generator = TextGenerator.from_pretrained(model, **run)
        generator.generate([[0]], max_new_tokens=1)
        return ServedModel(
            name,
            generator,
            None if template is None else ChatTemplate(template, generator.codec),
        )

    return load


def _name_of(model: str) -> str:
    """A Hub id, or the last part of a directory's path: clients need not see where it lies."""
    return Path(model).resolve().name if os.path.isdir(model) else model


def _log_to_stderr(level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("neox-ja: %(message)s"))
    for name in ("gpt_neox_japanese.server", "uvicorn.error"):
        log = logging.getLogger(name)
        log.handlers = [handler]
        log.propagate = False
        log.setLevel(level if name.startswith("gpt") else logging.ERROR)


def _say(line: str) -> None:
    click.echo(f"neox-ja: {line}", err=True)
