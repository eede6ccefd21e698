"""Texts that hold added tokens, in the lists that the face works with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from tokenizers import AddedToken

from gpt_neox_japanese.tokenizer.added_tokens import AddedTokens
from gpt_neox_japanese.tokenizer.codec import Codec

__all__ = ["TextEncoder"]


class TextEncoder:
    """A codec together with the tokens added to it. Never changes, so rows may hold on to it.

    Args:
        codec: Encodes everything else.
        added: id → token.
    """

    def __init__(self, codec: Codec, added: Mapping[int, AddedToken]) -> None:
        self._codec = codec.with_added(AddedTokens(added))

    def encode(self, text: str, *, allow_tags: bool) -> list[int]:
        """The ids of a text.

        Args:
            text: Any string of Unicode scalar values.
            allow_tags: Whether tags and special tokens that the text spells out become their ids.

        Raises:
            TokenizationError: The text holds a lone surrogate.
        """
        ids: list[int] = self._codec.encode(text, allow_tags=allow_tags).tolist()
        return ids

    def encode_batch(self, texts: Sequence[str], *, allow_tags: bool) -> list[list[int]]:
        """The ids of several texts, on all cores where that helps."""
        if len(texts) == 1:
            return [self.encode(texts[0], allow_tags=allow_tags)]
        ragged = self._codec.encode_batch(texts, allow_tags=allow_tags)
        ids, bounds = ragged.ids.tolist(), ragged.bounds.tolist()
        return [ids[start:end] for start, end in pairwise(bounds)]

    def encode_with_offsets(
        self, text: str, *, allow_tags: bool
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a text and, for each, the characters `(start, end)` that it stands for.

        Whitespace that an added token strips belongs to that token.
        """
        ids, offsets = self._codec.encode_with_offsets(text, allow_tags=allow_tags)
        return ids.tolist(), list(map(tuple, offsets.tolist()))
