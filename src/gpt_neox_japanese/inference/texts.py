"""What is left of a stream for whoever reads its text alone: strings, and a warning at the end."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping

from gpt_neox_japanese.inference.text_stream import TextStream

__all__ = ["texts_of", "warn_if_full"]


def texts_of(stream: TextStream, options: Mapping[str, object]) -> Iterator[str]:
    """The text of a stream, piece by piece.

    Args:
        stream: Of one text.
        options: What was asked for, by the names of `GenerationKwargs`.

    Yields:
        Whole characters.

    Raises:
        GenerationError: A step failed.
    """
    for chunk in stream:
        if chunk.text:
            yield chunk.text
    warn_if_full(stream, options)


def warn_if_full(stream: TextStream, options: Mapping[str, object]) -> None:
    """Say what nothing else tells whoever sees only the text: the context left it no room.

    Args:
        stream: At its end.
        options: What was asked for, by the names of `GenerationKwargs`.
    """
    if stream.context_is_full:
        warnings.warn(
            "the model's context is full: the text ends before"
            f" max_new_tokens={options.get('max_new_tokens', 200)}; shorten the prompt, or ask for"
            " less",
            stacklevel=_levels_to_caller(),
        )


def _levels_to_caller() -> int:
    """How many levels above who asks the first line stands that is not this package's."""
    own, _, _ = __name__.partition(".")
    frame, levels = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == own:
        frame, levels = frame.f_back, levels + 1
    return levels
