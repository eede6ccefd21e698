"""No command takes a number that it cannot compute with."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import click
import pytest

from gpt_neox_japanese import cli
from tests.cli.run import run

# What each command needs besides, so that nothing else is refused first.
ARGUMENTS = {
    "generate": ("猫",),
    "tokenize": ("a.txt", "--output", "out"),
    "vocab build": ("a.txt", "--output", "out", "--size", "9000"),
    "prepare": ("a.txt", "--tokenizer", "default", "--output", "out"),
    "train": ("--data", "data", "--output", "out"),
    "evaluate": ("--data", "a.txt"),
}
TOO_MUCH = str(10**30)


def commands() -> Iterator[tuple[str, click.Command]]:
    for name in cli._COMMANDS:
        command = importlib.import_module(f"gpt_neox_japanese.cli.{name}").command
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", each) for inner, each in command.commands.items())
        else:
            yield name, command


def numeric_options(*kinds: type) -> list[tuple[str, str]]:
    return [
        (name, option.opts[-1])
        for name, command in commands()
        for option in command.params
        if isinstance(option.type, kinds)
    ]


WHOLE = numeric_options(type(click.INT), click.IntRange)
REAL = numeric_options(type(click.FLOAT), click.FloatRange)


def test_options_with_numbers_are_found() -> None:
    assert {"generate", "train", "prepare", "vocab build"} <= {name for name, _ in REAL + WHOLE}
    assert len(REAL) > 12
    assert len(WHOLE) > 20


def assert_refused(command: str, option: str, value: str) -> None:
    result = run(*command.split(), *ARGUMENTS.get(command, ()), f"{option}={value}")
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("neox-ja: ")
    assert option.strip("-").replace("-", "_") in line.replace("-", "_")
    assert value.lstrip("-") in line


@pytest.mark.parametrize(("command", "option"), REAL)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_numbers_that_are_not_finite_are_refused(command: str, option: str, value: str) -> None:
    assert_refused(command, option, value)


@pytest.mark.parametrize(("command", "option"), WHOLE)
@pytest.mark.parametrize("value", ["1.5", "nan", TOO_MUCH, f"-{TOO_MUCH}"])
def test_whole_numbers_are_whole_and_of_a_size_that_can_be_counted(
    command: str, option: str, value: str
) -> None:
    assert_refused(command, option, value)
