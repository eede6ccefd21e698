"""Chats in which transformers marked the tags that users typed, so that they stay text."""

from __future__ import annotations

from collections.abc import Sequence

from transformers.utils import chat_template_utils

from gpt_neox_japanese.errors import TokenizationError
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.tokenizer.results import Encoding
from gpt_neox_japanese.tokenizer.special_tokens import AllowedSpecial

__all__ = ["MarkedChatEncoder"]


class MarkedChatEncoder:
    """Encodes what a chat template wrote, each marked tag as plain text and without its marks.

    transformers does the same for the tokens that were added; here the tags of `vocab.txt` are
    control ids too.

    Args:
        encoder: For what stands between the marks.
        plain: For tags that are marked: the same without added tokens.
    """

    def __init__(self, encoder: Codec, plain: Codec) -> None:
        self._encoder = encoder
        self._plain = plain
        tags = {*encoder.special_tokens_set, *encoder.added_tokens.ids}
        _, self._marks = chat_template_utils._get_control_token_patterns(tuple(sorted(tags)))

    def encode_batch(
        self, texts: Sequence[str], *, allowed_special: AllowedSpecial
    ) -> list[list[int]]:
        """The ids of chats.

        Args:
            texts: With marks.
            allowed_special: Tags that become their ids where they are not marked.

        Returns:
            A list a chat.

        Raises:
            TokenizationError: A chat holds a lone surrogate, or a marked tag that plain text, too,
                is encoded as.
        """
        return [self._encode(text, allowed_special) for text in texts]

    def encode_with_offsets(self, text: str, *, allowed_special: AllowedSpecial) -> Encoding:
        """Refuse: the places would be those of a text with marks, which nobody sees.

        Args:
            text: Not used.
            allowed_special: Not used.

        Returns:
            Never.

        Raises:
            TokenizationError: Always.
        """
        raise TokenizationError(
            "where tokens stand in a chat is not known with sanitize_control_tokens=True; leave out"
            " return_offsets_mapping, or leave out sanitize_control_tokens"
        )

    def _encode(self, chat: str, allowed_special: AllowedSpecial) -> list[int]:
        ids: list[int] = []
        # Between the pieces stand the marked tags, and None for a mark that lost its tag.
        for number, piece in enumerate(self._marks.split(chat)):
            if number % 2 == 0:
                ids += self._encoder.encode(piece, allowed_special=allowed_special)
            elif piece is not None:
                as_text = self._plain.encode(piece)
                if self._encoder.token_to_id(piece) in as_text:
                    raise TokenizationError(
                        f"{piece!r:.60} is a special token and also what plain text is encoded as,"
                        " so a chat that holds it cannot be sanitized; leave out"
                        " sanitize_control_tokens"
                    )
                ids += as_text
        return ids
