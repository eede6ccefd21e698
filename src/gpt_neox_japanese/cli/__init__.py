"""The command `neox-ja`. Each subcommand is a module here, imported only when it is called.

Results go to stdout, progress to stderr. Misuse exits 2, failure exits 1, each with one line.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import select
import sys
from typing import Any, NoReturn

import click

from gpt_neox_japanese import __version__
from gpt_neox_japanese.cli.options.stdin import write_utf8
from gpt_neox_japanese.errors import NeoXJapaneseError

__all__ = ["main"]

# They warn whenever transformers loads torchao, which no command uses: of libraries for another
# Python or GPU, and of how torchao itself calls torch.
_NOT_OURS = ("torchao", "torch.utils._pytree")

# Name → what the overview says of it, so that the overview imports nothing.
_COMMANDS = {
    "generate": "Continue a Japanese text.",
    "chat": "Talk with a model that learned to answer.",
    "serve": "Serve a model over HTTP, with OpenAI's names.",
    "tokenize": "Text → ids.",
    "detokenize": "Ids → text.",
    "vocab": "Build or inspect a vocabulary.",
    "prepare": "Corpus → token shards.",
    "train": "Token shards → model.",
    "merge": "Adapters + model → model.",
    "average": "Several checkpoints → their mean.",
    "convert": "Checkpoint → another format, and back.",
    "bench": "How fast a model writes on this machine.",
    "evaluate": "Bits per character of a model on texts.",
    "publish": "A finished model → the Hugging Face Hub.",
}


class _Commands(click.Group):
    """Finds a subcommand in the module of its name, and ends with one line if it fails."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = importlib.import_module(f"{__name__}.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand, and say what click takes for something else."""
        try:
            return super().invoke(ctx)
        except EOFError as error:  # to click, Ctrl-D at a question, and so an interrupt
            raise click.ClickException(f"a file ended too early: {error!r}") from error
        except BrokenPipeError as error:  # to click, a reader such as `head` that has read enough
            if _nobody_reads():
                raise
            raise click.ClickException(str(error)) from error

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        write_utf8()
        for name in _NOT_OURS:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            status = super().main(*args, **{**kwargs, "standalone_mode": False})
            sys.exit(status if isinstance(status, int) else 0)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(2)
        except click.UsageError as error:
            hint = f" (try '{error.ctx.command_path} --help')" if error.ctx else ""
            _exit(2, error.format_message() + hint)
        except NeoXJapaneseError as error:  # misuse if the caller's value is to blame
            _exit(2 if isinstance(error, ValueError) else 1, error)
        except UnicodeEncodeError as error:  # the name of a file: what is written is UTF-8
            named = error.object[error.start : error.end]
            _exit(1, f"no file can be named {named!r} in {error.encoding}; set PYTHONUTF8=1")
        except MemoryError as error:
            _exit(1, ": ".join(["not enough memory", *map(str, error.args)]))
        except (click.ClickException, OSError) as error:
            _exit(1, error)
        except (click.Abort, KeyboardInterrupt):
            _exit(130, "interrupted")


def _nobody_reads() -> bool:
    """Whether standard output or standard error is a pipe whose other end was closed."""
    if not hasattr(select, "poll"):
        return False
    pipes = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError):  # there is none, or it is no file
            pipes.register(stream.fileno(), 0)
    return bool(pipes.poll(0))


def _exit(status: int, reason: object) -> NoReturn:
    """End with one line on stderr that says why."""
    message = " ".join(str(reason).split()) or type(reason).__name__
    with contextlib.suppress(OSError):  # the status tells it, where nobody reads
        click.echo(f"neox-ja: {message}", err=True)
    sys.exit(status)


# With "color", click writes escape sequences that are in a text to pipes and files as well.
@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "color": True})
@click.version_option(__version__, prog_name="neox-ja")
def main() -> None:
    """GPT-NeoX-Japanese: Japanese text, tokens and models."""
