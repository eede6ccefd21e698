from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from gpt_neox_japanese.cli import main
from tests.cli.run import assert_refused, run


def commands(group: click.Group, name: str = "neox-ja") -> Iterator[tuple[str, click.Command]]:
    """All that can be called, by its whole name."""
    context = click.Context(group)
    for part in group.list_commands(context):
        found = group.get_command(context, part)
        assert found is not None
        if isinstance(found, click.Group):
            yield from commands(found, f"{name} {part}")
        else:
            yield f"{name} {part}", found


PATHS = [
    pytest.param(parameter, id=f"{name} {parameter.opts[0]}")
    for name, command in commands(main)
    for parameter in command.params
    if isinstance(parameter.type, (click.Path, click.File))
    and (name, parameter.name) != ("neox-ja tokenize", "text")  # which may be a text, and empty
]


@pytest.mark.parametrize("parameter", PATHS)
@pytest.mark.parametrize("value", ["", "a\0b"])
def test_path_that_names_nothing_is_refused_everywhere(
    parameter: click.Parameter, value: str
) -> None:
    with pytest.raises(click.UsageError, match="names nothing"):
        parameter.type.convert(value, parameter, None)


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert", "default", "--to", "bf16", "--output", ""),
        ("serve", "--chat-template", ""),
        ("tokenize", "", "--output", "out.jsonl"),
    ],
)
def test_empty_path_does_not_mean_the_working_directory(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(run(*arguments), "names nothing")
    assert not list(tmp_path.iterdir())
