"""Numbers of options: finite, of the kind that is asked for, and small enough to compute with."""

from __future__ import annotations

import math
from typing import Any

import click

from gpt_neox_japanese.checks import short_repr

__all__ = ["Real", "Whole"]

_MOST = 2**63 - 1
_MOST_DIGITS = 100


class Whole(click.IntRange):
    """A whole number. A file of options may hold 1.5 or true, of which `int` would make 1."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number.

        Raises:
            click.BadParameter: it is none, or not in the range.
        """
        is_cut = isinstance(value, float) and not value.is_integer()
        if is_cut or not _is_short(value):
            self.fail(f"{short_repr(value)} is not a whole number.", param, ctx)
        number = super().convert(value, param, ctx)
        if abs(number) > _MOST:
            self.fail(f"{value} is too large; it must be at most {_MOST}.", param, ctx)
        return number

    def _describe_range(self) -> str:
        return "" if self.min is self.max is None else super()._describe_range()


class Real(click.FloatRange):
    """A number that is neither infinite nor NaN, both of which `float` reads."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number.

        Raises:
            click.BadParameter: it is none, not finite, or not in the range.
        """
        number = super().convert(value, param, ctx) if _is_short(value) else math.nan
        if not math.isfinite(number):
            self.fail(f"{short_repr(value)} is not a finite number.", param, ctx)
        return number

    def _describe_range(self) -> str:
        return "" if self.min is self.max is None else super()._describe_range()


def _is_short(value: Any) -> bool:
    """Whether a value is a number, or text that may be one, and fits a line of a message."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 10**_MOST_DIGITS
    return isinstance(value, float) or (isinstance(value, str) and len(value) <= _MOST_DIGITS)
