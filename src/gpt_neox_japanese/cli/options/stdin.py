"""Text that comes in and goes out, which is UTF-8 whatever the system is set to."""

from __future__ import annotations

import io
import os
import sys

import click

__all__ = ["TEXT", "read_text", "write_utf8"]


class _Text(click.types.StringParamType):
    """An argument that is text, and no name of a file.

    In the locale C, Python takes each byte of a Japanese argument for half of a character. A name
    has to stay like that, for it is what the system finds the file by; text is read anew.
    """

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Decode the bytes that were typed: as UTF-8, or else as the locale says."""
        text = str(value)
        try:
            return os.fsencode(text).decode("utf-8")
        except UnicodeError:
            if any("\udc80" <= character <= "\udcff" for character in text):
                self.fail(
                    f"the bytes of {text!r} are not UTF-8 (the locale of this terminal says "
                    f"{sys.getfilesystemencoding()}); set it to UTF-8, or pipe the text in",
                    param,
                    ctx,
                )
            return text


TEXT = _Text()


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


def write_utf8() -> None:
    """Let standard output and standard error be UTF-8, with lines that end in LF alone.

    What one command writes another reads, and a pipe of Windows would be CP932 with CRLF, in which
    hundreds of a vocabulary's characters cannot be written. A file's name that is not UTF-8 is
    written as the bytes that it is.
    """
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):  # in a notebook, say, it is not
            stream.reconfigure(encoding="utf-8", errors=errors, newline="\n")
