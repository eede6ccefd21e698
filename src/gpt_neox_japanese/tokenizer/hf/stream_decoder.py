"""Text from ids that arrive one by one, added tokens among them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from gpt_neox_japanese.tokenizer.decoding import StreamDecoder

__all__ = ["TokenStream"]


class TokenStream:
    """A stream decoder that knows added tokens and may leave out special ones.

    Args:
        stream: Decodes the ids of the vocabulary.
        added: id → text of tokens that are not in the vocabulary.
        skipped: Ids that give no text.
    """

    def __init__(
        self, stream: StreamDecoder, added: Mapping[int, str], skipped: Collection[int]
    ) -> None:
        self._stream = stream
        self._added = added
        self._skipped = skipped

    def feed(self, token_id: int) -> str:
        """The text that this id completes; empty inside a character.

        Raises:
            TokenizationError: No such id.
        """
        if token_id in self._skipped:
            return ""
        if token_id in self._added:
            return self._stream.finish() + self._added[token_id]
        return self._stream.feed(token_id)

    def finish(self) -> str:
        """What is left at the end, where a character was begun and never completed."""
        return self._stream.finish()
