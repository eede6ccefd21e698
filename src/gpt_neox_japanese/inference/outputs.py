"""What a text generator gives: parts of a text as they are written, and whole texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gpt_neox_japanese.inference.scheduler.request import FinishReason

__all__ = ["Completion", "OutputToken", "TextChunk", "TextScore"]


class OutputToken(NamedTuple):
    """A chosen id and where its text stands.

    Attributes:
        id: What was chosen.
        start: The first character of its text. Ids that are bytes of one character all stand for
            that character; an id without text, or behind the end of the text, has `start == end`.
        end: The character after the last one.
        logprob: Its log-probability, where asked for.
        top: The likeliest ids and their log-probabilities, likeliest first.
    """

    id: int
    start: int
    end: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class TextChunk(NamedTuple):
    """The next part of a text.

    Attributes:
        text: Whole characters; may be empty.
        tokens: The tokens that are out with it.
        finish_reason: None before the last chunk; then "stop" after a stop string or stop id, and
            "length" where `max_new_tokens` or the context ended the text.
    """

    text: str
    tokens: tuple[OutputToken, ...] = ()
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class Completion:
    """A whole continuation.

    Attributes:
        text: What was written, with the prompt before it where that was asked for.
        token_ids: Every id that was chosen, those of the stop string too.
        offsets: For each token, where its text begins and ends in `text`.
        logprobs: For each token its log-probability; None where they were not asked for.
        top_logprobs: For each token the likeliest ids and their log-probabilities, likeliest first.
        finish_reason: "stop" at a stop string or stop id, "length" where `max_new_tokens` or the
            context ended the text.
    """

    text: str
    token_ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    logprobs: tuple[float, ...] | None
    top_logprobs: tuple[dict[int, float], ...] | None
    finish_reason: FinishReason

    @classmethod
    def from_chunks(cls, chunks: Iterable[TextChunk], *, has_logprobs: bool) -> Completion:
        """Put all chunks of a text together.

        Args:
            chunks: All of one text; the last has a `finish_reason`.
            has_logprobs: Whether log-probabilities were asked for.

        Returns:
            The whole text with all its tokens.
        """
        texts: list[str] = []
        tokens: list[OutputToken] = []
        reason: FinishReason | None = None
        for text, some, reason in chunks:  # noqa: B007
            texts.append(text)
            tokens.extend(some)
        assert reason is not None
        logprobs = tuple(token.logprob for token in tokens if token.logprob is not None)
        return cls(
            text="".join(texts),
            token_ids=tuple(token.id for token in tokens),
            offsets=tuple((token.start, token.end) for token in tokens),
            logprobs=logprobs if has_logprobs else None,
            top_logprobs=tuple(dict(token.top) for token in tokens) if has_logprobs else None,
            finish_reason=reason,
        )


@dataclass(frozen=True)
class TextScore:
    """How likely a model finds a text.

    Attributes:
        text: The text.
        token_ids: Its ids.
        offsets: For each token, where its text begins and ends in `text`.
        logprobs: For each token its log-probability after those before it, natural logarithm; None
            for the first, which nothing stands before.
        top_logprobs: For each token the ids that were likeliest there and their log-probabilities,
            likeliest first; empty for the first.
    """

    text: str
    token_ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    logprobs: tuple[float | None, ...]
    top_logprobs: tuple[dict[int, float], ...]

    @classmethod
    def from_tokens(cls, text: str, tokens: Sequence[OutputToken]) -> TextScore:
        """Put the scored tokens of a text together.

        Args:
            text: The text.
            tokens: All of its tokens.

        Returns:
            The whole.
        """
        return cls(
            text=text,
            token_ids=tuple(token.id for token in tokens),
            offsets=tuple((token.start, token.end) for token in tokens),
            logprobs=tuple(token.logprob for token in tokens),
            top_logprobs=tuple(dict(token.top) for token in tokens),
        )

    @property
    def total_logprob(self) -> float:
        """The sum of all log-probabilities: that of the text after its first token."""
        return math.fsum(logprob for logprob in self.logprobs if logprob is not None)
