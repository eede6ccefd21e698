"""Segmentation in plain Python: the algorithm as one reads it, and what faster code must equal."""

from __future__ import annotations

from typing import NamedTuple

from gpt_neox_japanese.errors import TokenizationError, VocabularyError
from gpt_neox_japanese.tokenizer.normalization import Normalizer
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

__all__ = ["Encoding", "ReferenceEncoder"]

_LONGEST_PIECE = 3


class Encoding(NamedTuple):
    """The ids of a text and where each came from.

    Attributes:
        ids: one id a token.
        offsets: `(start, end)` a token: characters of the source text, end excluded. The byte
            tokens of one character all have its offsets.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]


class ReferenceEncoder:
    """Text to ids, one readable step at a time.

    Args:
        vocabulary: Surface forms and emoji.
        legacy: Give exactly the ids of transformers' tokenizer.
        clean: Replace URLs, addresses, dates, prices and box drawing by tags.
        unknown: The entry for characters whose byte tokens the vocabulary lacks.
    """

    def __init__(self, vocabulary: Vocabulary, *, legacy: bool, clean: bool, unknown: str) -> None:
        if unknown not in vocabulary.ids:
            raise VocabularyError(
                f"the unknown token {unknown!r} is not in the vocabulary; name one of its entries"
            )
        self._normalize = Normalizer(vocabulary.emoji, legacy=legacy, clean=clean)
        self._forms = dict(vocabulary.ids)
        if legacy:
            # transformers splits every line at its commas, the comma's own line too: there the
            # comma has no entry and is written as a byte.
            self._forms.pop(",", None)
        self._longest_tag = max(map(len, self._forms))
        self._unknown_id = vocabulary.ids[unknown]

    def encode(self, text: str, *, allow_tags: bool) -> Encoding:
        """Encode one text.

        Args:
            text: Any string of Unicode scalar values.
            allow_tags: Whether tags spelled out in the text (`<|endoftext|>`, `<BR>`) become their
                control ids, as in transformers. Otherwise they are text like any other.

        Raises:
            TokenizationError: The text holds a lone surrogate.
        """
        symbols, starts = self._normalize(text)
        encoding = Encoding([], [])
        position = 0
        while position < len(symbols):
            ids, length = self._next_token(symbols, position, allow_tags=allow_tags)
            end = position + length
            encoding.ids.extend(ids)
            encoding.offsets.extend([(starts[position], starts[end])] * len(ids))
            position = end
        return encoding

    def _next_token(
        self, symbols: list[str], position: int, *, allow_tags: bool
    ) -> tuple[list[int], int]:
        """The ids at `position`, and how many symbols they stand for."""
        symbol = symbols[position]
        if len(symbol) > 1:  # a tag that normalization wrote
            return [self._forms[symbol]], 1

        if symbol == "<" and allow_tags:
            for length in range(min(self._longest_tag, len(symbols) - position), 2, -1):
                tag = "".join(symbols[position : position + length])
                if tag in self._forms:
                    return [self._forms[tag]], length

        best_id, best_length = -1, 0
        for length in range(min(_LONGEST_PIECE, len(symbols) - position), 0, -1):
            piece = "".join(symbols[position : position + length])
            if symbol == "<" and len(piece) > 2:
                continue  # a tag, and those were not asked for
            piece_id = self._forms.get(piece, -1)
            # The smallest id wins, whatever its length. That is the published behaviour.
            if piece_id >= 0 and (best_id < 0 or piece_id < best_id):
                best_id, best_length = piece_id, length
        if best_length:
            return [best_id], best_length
        return self._fallback(symbol), 1

    def _fallback(self, character: str) -> list[int]:
        """Ids of a character that has no entry: its symbol class, or its UTF-8 bytes."""
        tag = _symbol_class(ord(character))
        if tag:
            return [self._forms[tag]]
        try:
            data = character.encode()
        except UnicodeEncodeError as error:
            raise TokenizationError(
                f"the text holds a lone surrogate, U+{ord(character):04X}; decode its bytes with"
                " errors='replace' first"
            ) from error
        return [self._forms.get(f"<|byte{byte}|>", self._unknown_id) for byte in data]


def _symbol_class(code_point: int) -> str | None:
    """The tag for characters that are symbols in a broad sense; the ranges are the reference's."""
    if (
        0x00A1 <= code_point <= 0x00BF  # Latin-1 punctuation
        or 0x01C0 <= code_point <= 0x01C3  # clicks
        or 0x02B9 <= code_point <= 0x0362  # modifier letters and accents
    ):
        return "<KIGOU>"
    if 0x2000 <= code_point <= 0x2BFF:  # general punctuation to miscellaneous symbols and arrows
        return "<U2000U2BFF>"
    return None
