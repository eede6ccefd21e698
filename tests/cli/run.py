"""Calling `neox-ja` in this process."""

from __future__ import annotations

from click.testing import CliRunner, Result

from gpt_neox_japanese.cli import main


def run(*arguments: object, stdin: str | bytes | None = None) -> Result:
    """The outcome of one call; `stdin` is what is piped in."""
    return CliRunner().invoke(main, [str(a) for a in arguments], input=stdin)


def assert_refused(result: Result, said: str) -> None:
    """Exit 2, nothing on stdout, one line on stderr that says why."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
