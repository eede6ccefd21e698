"""Shows the doctests of docstrings as code in the API reference, wherever they stand.

Zensical loads it (`zensical.toml`). Griffe knows them in sections called "Examples:" only.
"""

from __future__ import annotations

import re
from typing import Any

import griffe


class Doctests(griffe.Extension):
    """Puts a fence around every doctest that stands in a docstring's prose."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object that was read."""
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.M)
            obj.docstring.value = re.sub(
                r"^>>> .*\n?(?:^.+\n?)*",
                lambda test: f"```pycon\n{test[0].rstrip()}\n```\n",
                text,
                flags=re.M,
            )
