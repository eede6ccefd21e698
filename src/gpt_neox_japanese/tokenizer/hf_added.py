"""Texts that hold added tokens: cut them out, encode what lies between."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from tokenizers import AddedToken

from gpt_neox_japanese.tokenizer.codec import Codec

__all__ = ["TextEncoder"]

_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"\w")


class TextEncoder:
    """A codec together with the tokens added to it. Never changes, so rows may hold on to it.

    Where several added tokens match, the leftmost is taken, and of those the longest. `lstrip`,
    `rstrip` and `single_word` mean what they mean in `tokenizers`.

    Args:
        codec: Encodes everything else.
        added: id → token.
    """

    def __init__(self, codec: Codec, added: Mapping[int, AddedToken]) -> None:
        self._codec = codec
        self._added = {token.content: (i, token) for i, token in added.items() if token.content}
        longest_first = sorted(self._added, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def encode(self, text: str, *, allow_tags: bool) -> list[int]:
        """The ids of a text.

        Args:
            text: Any string of Unicode scalar values.
            allow_tags: Whether added tokens and tags that the text spells out become their ids.

        Raises:
            TokenizationError: The text holds a lone surrogate.
        """
        if not allow_tags or self._pattern.search(text) is None:
            ids: list[int] = self._codec.encode(text, allow_tags=allow_tags).tolist()
            return ids
        return self.encode_with_offsets(text, allow_tags=True)[0]

    def encode_batch(self, texts: Sequence[str], *, allow_tags: bool) -> list[list[int]]:
        """The ids of several texts, on all cores where that helps."""
        if len(texts) == 1 or (allow_tags and self._pattern.search("\n".join(texts))):
            return [self.encode(text, allow_tags=allow_tags) for text in texts]
        ragged = self._codec.encode_batch(texts, allow_tags=allow_tags)
        ids, bounds = ragged.ids.tolist(), ragged.bounds.tolist()
        return [ids[start:end] for start, end in pairwise(bounds)]

    def encode_with_offsets(
        self, text: str, *, allow_tags: bool
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a text and, for each, the characters `(start, end)` that it stands for.

        Whitespace that an added token strips belongs to that token.
        """
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        segments = self._segments(text) if allow_tags else [(0, len(text), None)]
        for start, end, token_id in segments:
            if token_id is not None:
                ids.append(token_id)
                offsets.append((start, end))
                continue
            encoding = self._codec.encode_with_offsets(text[start:end], allow_tags=allow_tags)
            ids += encoding.ids.tolist()
            offsets += zip(*(encoding.offsets + start).T.tolist(), strict=True)
        return ids, offsets

    def _segments(self, text: str) -> Iterator[tuple[int, int, int | None]]:
        """`(start, end, id)` of each added token, and of the text between, whose id is None."""
        done = 0
        for match in self._pattern.finditer(text):
            token_id, token = self._added[match[0]]
            start, end = match.span()
            if start < done or (token.single_word and _touches_word(text, start, end)):
                continue
            if token.lstrip:
                start = done + len(text[done:start].rstrip())
            if token.rstrip and (spaces := _SPACE.match(text, end)):
                end = spaces.end()
            if done < start:
                yield done, start, None
            yield start, end, token_id
            done = end
        if done < len(text):
            yield done, len(text), None


def _touches_word(text: str, start: int, end: int) -> bool:
    """Whether a word goes on before `start` or after `end`."""
    return bool((start and _WORD.match(text, start - 1)) or _WORD.match(text, end))
