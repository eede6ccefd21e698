"""Chosen ids to text, as they come, with the place of each in the text."""

from __future__ import annotations

from collections.abc import Collection

from gpt_neox_japanese.inference.outputs import OutputToken, TextChunk
from gpt_neox_japanese.inference.sampling.sampler import Choice
from gpt_neox_japanese.inference.scheduler.request import FinishReason
from gpt_neox_japanese.inference.stop_strings import StopStrings
from gpt_neox_japanese.tokenizer.codec import Codec

__all__ = ["Detokenizer"]


class Detokenizer:
    """The text of one request.

    Bytes that form no character are left out rather than shown, and so are marks of the training
    data. Their ids are tokens without text.

    Args:
        codec: Decodes.
        stop: Where the text ends.
        hidden: Ids that are never shown.
        byte_ids: Ids that are one byte of a character.
        start: Offsets count from here; the length of the prompt where that is shown too.
    """

    def __init__(
        self,
        codec: Codec,
        stop: StopStrings,
        *,
        hidden: Collection[int] = (),
        byte_ids: Collection[int] = (),
        start: int = 0,
    ) -> None:
        self._decoder = codec.stream_decoder(errors="ignore")
        self._stop = stop
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
        else:
            text = self._decoder.feed(choice.id)
        self._open.append(choice)
        is_byte = choice.id in self._byte_ids
        if is_byte and not text:
            return TextChunk("")
        self._place(text, len(text.encode()) if is_byte else 1)
        chunk = self._give(self._stop.feed(text))
        return chunk._replace(finish_reason="stop") if self.stopped else chunk

    def finish(self, reason: FinishReason) -> TextChunk:
        """The rest, where no id follows.

        Args:
            reason: Why the text ends.
        """
        self._place("", 0)
        return self._give(self._stop.finish(), everything=True)._replace(finish_reason=reason)

    def _place(self, text: str, last: int) -> None:
        """Give `text` to the `last` open choices; those before them stand for nothing."""
        start, end = self._decoded, self._decoded + len(text)
        first = len(self._open) - last
        for number, (token_id, logprob, top) in enumerate(self._open):
            token_end = end if number >= first else start
            self._held.append(OutputToken(token_id, start, token_end, logprob, top))
        self._open.clear()
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
