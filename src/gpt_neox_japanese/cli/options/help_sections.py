"""Help of a command with many options, in sections."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

__all__ = ["GroupedCommand", "options_of"]


class _GroupedOption(click.Option):
    """An option that names the section it is told of in."""

    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class GroupedCommand(click.Command):
    """Shows its options section by section, those without a section last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a list of options for each section."""
        options = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        options.sort(key=lambda option: not isinstance(option, _GroupedOption))
        sections: dict[str, list[tuple[str, str]]] = {}
        for option in options:
            record = option.get_help_record(ctx)
            if record:
                section = getattr(option, "section", "Other options")
                sections.setdefault(section, []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)


def options_of(section: str) -> Callable[..., Callable[[Any], Any]]:
    """`click.option` for options of one section."""
    return partial(click.option, cls=_GroupedOption, section=section)
