"""Ids to text: tags become what they stand for, byte tokens become characters again."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from typing import Literal

from gpt_neox_japanese.errors import TokenizationError
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

__all__ = ["Decoder", "StreamDecoder"]

# Classes of many characters are written as one of them.
_TEXT_OF_TAG = {
    "<SP>": " ",
    "<BR>": "\n",
    "<TAB>": "\t",
    "<BLOCK>": "▀",
    "<KIGOU>": "ǀ",
    "<U2000U2BFF>": "‖",
}
_BYTE = re.compile(r"<\|byte([0-9]{1,3})\|>")


class Decoder:
    """Turns ids into text. Whitespace is kept, and bytes are joined before they are decoded."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        text_of_tag = {**_TEXT_OF_TAG, **vocabulary.emoji_inv}
        self._pieces: list[str | bytes] = [
            _byte_of(forms[0]) or text_of_tag.get(forms[0], forms[0])
            for forms in vocabulary.surfaces
        ]

    def piece(self, token_id: int) -> str | bytes:
        """What one id stands for: text, or a single byte of a character.

        Raises:
            TokenizationError: No such id.
        """
        if not 0 <= token_id < len(self._pieces):
            raise TokenizationError(
                f"id {token_id} is outside the vocabulary; ids are 0 to {len(self._pieces) - 1}"
            )
        return self._pieces[token_id]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a sequence of ids. Bytes that form no character become U+FFFD."""
        stream = self.stream()
        return "".join([stream.feed(token_id) for token_id in ids]) + stream.finish()

    def stream(self, *, errors: Literal["replace", "ignore"] = "replace") -> StreamDecoder:
        """A decoder that is fed one id at a time.

        Args:
            errors: Whether bytes that form no character become U+FFFD or nothing.
        """
        return StreamDecoder(self, errors)


class StreamDecoder:
    """Text as soon as its characters are complete; nothing is lost and nothing is shown early."""

    def __init__(self, decoder: Decoder, errors: str) -> None:
        self._decoder = decoder
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors=errors)
        self._inside_character = False

    def feed(self, token_id: int) -> str:
        """The text that this id completes; empty inside a character."""
        piece = self._decoder.piece(token_id)
        if isinstance(piece, str):
            return self._end_of_bytes() + piece
        self._inside_character = True
        return self._utf8.decode(piece)

    def finish(self) -> str:
        """What is left at the end, where a character was begun and never completed."""
        return self._end_of_bytes()

    def _end_of_bytes(self) -> str:
        if not self._inside_character:
            return ""
        self._inside_character = False
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest


def _byte_of(surface: str) -> bytes | None:
    match = _BYTE.fullmatch(surface)
    if match is None or int(match[1]) > 255:
        return None
    return bytes([int(match[1])])
