"""Chosen ids to text, as they come, with the place of each in the text."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Sequence
from itertools import accumulate

from gpt_neox_japanese.inference.outputs import OutputToken, TextChunk
from gpt_neox_japanese.inference.sampling.sampler import Choice
from gpt_neox_japanese.inference.scheduler.request import FinishReason
from gpt_neox_japanese.inference.stop_strings import StopStrings
from gpt_neox_japanese.inference.whole_sentences import WholeSentences
from gpt_neox_japanese.tokenizer.codec import Codec

__all__ = ["Detokenizer", "place_tokens"]

_BYTES_AT_ONCE = 4096  # an error of decoding holds a copy of all that were to be decoded


class Detokenizer:
    """The text of one request.

    Bytes that form no character are left out rather than shown, and so are marks of the training
    data. Their ids are tokens without text.

    Args:
        codec: Decodes.
        stop: Where the text ends.
        sentences: Drops a last sentence that is not whole; None to leave it.
        hidden: Ids that are never shown.
        byte_ids: Ids that are one byte of a character.
        start: Offsets count from here; the length of the prompt where that is shown too.
    """

    def __init__(
        self,
        codec: Codec,
        stop: StopStrings,
        *,
        sentences: WholeSentences | None = None,
        hidden: Collection[int] = (),
        byte_ids: Collection[int] = (),
        start: int = 0,
    ) -> None:
        self._decoder = codec.stream_decoder(errors="ignore")
        self._stop = stop
        self._sentences = sentences
        self._byte_ids = byte_ids
        self._hidden = hidden
        self._decoded = start  # characters decoded, those of a stop string too
        self._shown = start  # characters given out
        self._open: list[Choice] = []  # bytes of a character that is not complete
        self._held: list[OutputToken] = []  # tokens whose text is not out yet

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found: nothing follows."""
        return self._stop.found is not None

    @property
    def num_shown(self) -> int:
        """Where the text that was given out ends."""
        return self._shown

    def feed(self, choice: Choice) -> TextChunk:
        """What the next id makes certain: text, and the tokens that stand in it.

        Args:
            choice: The next id.

        Returns:
            Text and tokens that no later id changes; empty while a character is incomplete. With
            `finish_reason` "stop" if a stop string was found.
        """
        if choice.id in self._hidden:
            text = self._decoder.finish()
        elif self._sentences is None and not (
            self._open or self._held or self._stop or choice.id in self._byte_ids
        ):
            return self._whole(self._decoder.feed(choice.id), choice)  # as most tokens are
        else:
            text = self._decoder.feed(choice.id)
        self._open.append(choice)
        is_byte = choice.id in self._byte_ids
        if is_byte and not text:
            return TextChunk("")
        self._place(text, len(text.encode()) if is_byte else 1, self._decoder.num_pending)
        text = self._stop.feed(text)
        if self._sentences is not None:
            text = self._sentences.feed(text)
            if self.stopped:
                text += self._sentences.finish(is_broken_off=False)[0]
        chunk = self._give(text)
        return chunk._replace(finish_reason="stop") if self.stopped else chunk

    def finish(self, reason: FinishReason) -> TextChunk:
        """The rest, where no id follows.

        Args:
            reason: Why the text ends.
        """
        self._place("", 0)
        rest = self._stop.finish()
        closing = ""
        if self._sentences is not None:
            rest = self._sentences.feed(rest)
            last, closing = self._sentences.finish(is_broken_off=reason == "length")
            rest += last
        chunk = self._give(rest, everything=True)
        self._shown += len(closing)
        return chunk._replace(text=chunk.text + closing, finish_reason=reason)

    def _whole(self, text: str, choice: Choice) -> TextChunk:
        """A token that stands for text of its own, after which nothing is open or held back."""
        start, end = self._shown, self._shown + len(text)
        self._shown = self._decoded = end
        return TextChunk(text, (OutputToken(choice.id, start, end, choice.logprob, choice.top),))

    def _place(self, text: str, last: int, num_pending: int = 0) -> None:
        """Give `text` to the `last` open choices; those before them stand for nothing.

        The `num_pending` after them stay open.
        """
        start, end = self._decoded, self._decoded + len(text)
        placed = self._open[: len(self._open) - num_pending]
        first = len(placed) - last
        for number, (token_id, logprob, top) in enumerate(placed):
            token_end = end if number >= first else start
            self._held.append(OutputToken(token_id, start, token_end, logprob, top))
        del self._open[: len(placed)]
        self._decoded = end

    def _give(self, text: str, *, everything: bool = False) -> TextChunk:
        """Count `text` as shown, and release the tokens that end in it."""
        self._shown += len(text)
        if everything or self.stopped:
            out = [
                token._replace(start=min(token.start, self._shown), end=min(token.end, self._shown))
                for token in self._held
            ]
        else:
            out = [token for token in self._held if token.end <= self._shown]
        del self._held[: len(out)]
        return TextChunk(text, tuple(out))


def place_tokens(codec: Codec, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Where each of some ids stands in their text, as `Codec.decode` gives it.

    Args:
        codec: Decodes.
        ids: Of a prompt.

    Returns:
        For each id the character that it begins at and the one after its last. Bytes that form no
        character stand for the U+FFFD made of them.
    """
    pieces = [codec.decode_single_token_bytes(token_id) for token_id in ids]
    begun = [0, *accumulate(_beginnings(b"".join(pieces)))]  # characters before each byte
    places = []
    end = 0
    for piece in pieces:
        start, end = end, end + len(piece)
        places.append((begun[start + 1] - 1 if piece else begun[start], begun[end]))
    return places


def _beginnings(data: bytes) -> list[bool]:
    """Whether a character of a text begins at each byte, as decoding with "replace" sees it."""
    begins = [byte & 0xC0 != 0x80 for byte in data]
    at = 0
    while at < len(data):
        part = data[at : at + _BYTES_AT_ONCE]
        try:
            at += codecs.utf_8_decode(part, "strict", len(part) < _BYTES_AT_ONCE)[1]
        except UnicodeDecodeError as error:
            size = error.end - error.start
            begins[at + error.start : at + error.end] = [True, *[False] * (size - 1)]
            at += error.end
    return begins
