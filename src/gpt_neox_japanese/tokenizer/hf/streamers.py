"""Streamers for `generate` that show every character as soon as it is there.

transformers' own lose nothing either, but they hold text back until a space, a line break or a
kanji comes, which in a sentence of kana is never, and decode the line anew for each token.
"""

from __future__ import annotations

from typing import Any

import transformers

from gpt_neox_japanese.errors import TokenizationError
from gpt_neox_japanese.tokenizer.decoding import StreamDecoder

__all__ = ["AsyncTextIteratorStreamer", "TextIteratorStreamer", "TextStreamer"]


class TextStreamer(transformers.TextStreamer):
    """Prints text while `generate` makes it.

    Args:
        tokenizer: A `GPTNeoXJapaneseTokenizer`.
        skip_prompt: Leave out the ids that `generate` was given.
        **decode_kwargs: `skip_special_tokens=True` leaves special tokens out.

    Raises:
        TokenizationError: There is no such option.
    """

    _stream: StreamDecoder | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Text is never cleaned up here: to ask for that is a mistake, to ask for none is not.
        honoured = {"skip_special_tokens"}
        if not self.decode_kwargs.get("clean_up_tokenization_spaces"):
            honoured.add("clean_up_tokenization_spaces")
        if unknown := sorted(self.decode_kwargs.keys() - honoured):
            raise TokenizationError(
                f"unknown options {unknown}; leave them out: a streamer takes skip_special_tokens"
            )

    def put(self, value: Any) -> None:
        """Take ids, int64 [tokens] or [1, tokens]: the prompt, then each new one.

        Args:
            value: The ids, on any device.

        Raises:
            TokenizationError: The ids belong to several sequences.
        """
        if value.ndim > 1 and value.shape[0] > 1:
            raise TokenizationError(f"cannot stream {value.shape[0]} sequences at once; pass one")
        is_prompt, self.next_tokens_are_prompt = self.next_tokens_are_prompt, False
        if is_prompt and self.skip_prompt:
            return
        if self._stream is None:
            skip = self.decode_kwargs.get("skip_special_tokens", False)
            self._stream = self.tokenizer.stream_decoder(skip_special_tokens=skip)
        text = "".join(map(self._stream.feed, value.reshape(-1).tolist()))
        if text:
            self.on_finalized_text(text)

    def end(self) -> None:
        """Show what is left, and be ready for another sequence."""
        rest = self._stream.finish() if self._stream else ""
        self._stream = None
        self.next_tokens_are_prompt = True
        self.on_finalized_text(rest, stream_end=True)


class TextIteratorStreamer(TextStreamer, transformers.TextIteratorStreamer):
    """Hands the text to whoever iterates, in another thread than `generate`.

    Args:
        tokenizer: A `GPTNeoXJapaneseTokenizer`.
        skip_prompt: Leave out the ids that `generate` was given.
        timeout: Seconds to wait for text.
        **decode_kwargs: `skip_special_tokens=True` leaves special tokens out.
    """


class AsyncTextIteratorStreamer(TextStreamer, transformers.AsyncTextIteratorStreamer):
    """As `TextIteratorStreamer`, for `async for`."""
