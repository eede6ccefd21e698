"""Where a text ends: the first of some strings, wherever tokens cut it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpt_neox_japanese.errors import GenerationError

__all__ = ["StopStrings", "check_stop"]


class StopStrings:
    """Lets text pass as early as possible, up to the first stop string.

    That is the string that is complete first, however the text is cut into pieces; of those that
    end together the one that begins first. Text that may be its beginning is held back until it is
    known not to be.

    Args:
        strings: One, or any number of them.

    Raises:
        GenerationError: One of them is empty or no string.
    """

    def __init__(self, strings: str | Sequence[str] = ()) -> None:
        self._strings = check_stop(strings)
        self._held = ""
        self.found: str | None = None

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._strings)

    def feed(self, text: str) -> str:
        """What is certain to come before the stop string, now that `text` is known.

        Args:
            text: What follows the text so far.

        Returns:
            That text, without what was returned before; what may begin a stop string is held back.
        """
        if not self._strings:
            return text
        held = self._held + text
        ends = [
            (at + len(string), at, string)
            for string in self._strings
            if (at := held.find(string)) >= 0
        ]
        if ends:
            _, ready, self.found = min(ends)
            self._held = ""
            return held[:ready]
        ready = len(held) - max(_overlap(held, string) for string in self._strings)
        self._held = held[ready:]
        return held[:ready]

    def finish(self) -> str:
        """What was held back, when no text follows."""
        held, self._held = self._held, ""
        return held


def check_stop(stop: Any) -> tuple[str, ...]:
    """Return the stop strings of a request.

    Args:
        stop: Any object; what can be read only once is read here.

    Returns:
        The strings.

    Raises:
        GenerationError: It is neither a string nor several, or one of them is empty.
    """
    try:
        strings = (stop,) if isinstance(stop, str) else tuple(stop)
    except TypeError as error:
        raise GenerationError(
            f"stop is {stop!r}; it must be a string or a list of strings"
        ) from error
    for string in strings:
        if not isinstance(string, str) or not string:
            raise GenerationError(f"a stop string is {string!r}; write text or leave it out")
    return strings


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper beginning of `stop` that `text` ends with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
