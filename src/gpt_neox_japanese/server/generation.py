"""The texts of one request, written side by side and read as one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.outputs import TextChunk
from gpt_neox_japanese.inference.text_stream import TextStream
from gpt_neox_japanese.server.error_responses import ApiError

__all__ = ["Generation"]

# A text that is written at reading speed is sent token by token; of a faster one, some at a time.
_SECONDS_BETWEEN_READS = 0.02


class Generation:
    """Reads many streams, and hands on what comes, whichever it comes from.

    Args:
        streams: Begun; closed by `close`.
        prompts: The ids of each prompt; as many streams continue each of them.

    Attributes:
        streams: As above.
        num_written: Tokens so far.
        seconds_to_first_token: Since this was made; None before.
        seconds_of_texts: Of each text that is complete, from its first token to its last.
    """

    def __init__(self, streams: Sequence[TextStream], prompts: Sequence[list[int]]) -> None:
        self.streams = streams
        self._prompts = prompts
        self.num_written = 0
        self.seconds_to_first_token: float | None = None
        self.seconds_of_texts: list[float] = []
        self._begun = time.monotonic()
        self._first_tokens: dict[int, float] = {}  # of which stream → when
        self._arrived: asyncio.Queue[tuple[int, TextChunk] | Exception] = asyncio.Queue()
        self._readers: list[asyncio.Task[None]] = []

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of all prompts, each counted once."""
        return sum(map(len, self._prompts))

    def prompt_ids(self, index: int) -> list[int]:
        """The ids that a stream continues.

        Args:
            index: Which stream.

        Returns:
            The ids of its prompt.
        """
        return self._prompts[index * len(self._prompts) // len(self.streams)]

    @property
    def queue_position(self) -> int:
        """The place in the queue of the first of the texts, from 1; 0 when it is written."""
        return min((stream.queue_position for stream in self.streams), default=0)

    @property
    def num_cached_tokens(self) -> int:
        """Those of them that were taken from the prefix cache when each was read first."""
        num_choices = len(self.streams) // len(self._prompts)
        return sum(stream.num_cached_tokens for stream in self.streams[::num_choices])

    @property
    def seconds(self) -> float:
        """How long ago this was made."""
        return time.monotonic() - self._begun

    async def chunks(self) -> AsyncIterator[list[tuple[int, TextChunk]]]:
        """What is written, in the order in which it is.

        Yields:
            Everything that is there: which of the streams, and its next chunk. The last chunk of
            each stream has a `finish_reason`.

        Raises:
            GenerationError: A text cannot go on.
            ApiError: It was aborted.
        """
        self._readers = [
            asyncio.create_task(self._read(index, stream))
            for index, stream in enumerate(self.streams)
        ]
        num_open = len(self.streams)
        while num_open:
            arrived = [await self._arrived.get()]
            while not self._arrived.empty():
                arrived.append(self._arrived.get_nowait())
            chunks = []
            for each in arrived:
                if isinstance(each, Exception):
                    raise each
                chunks.append(each)
                num_open -= each[1].finish_reason is not None
                self._count(*each)
            yield chunks

    def _count(self, index: int, chunk: TextChunk) -> None:
        now = time.monotonic()
        self.num_written += len(chunk.tokens)
        if chunk.tokens:
            self._first_tokens.setdefault(index, now)
        if chunk.finish_reason:
            self.num_written += self.streams[index].stop_token is not None
            self.seconds_of_texts.append(now - self._first_tokens.get(index, now))
        if self.num_written and self.seconds_to_first_token is None:
            self.seconds_to_first_token = self.seconds

    async def _read(self, index: int, stream: TextStream) -> None:
        try:
            async for chunk in stream:
                self._arrived.put_nowait((index, chunk))
                if chunk.finish_reason is not None:
                    return
                if not stream.has_more:  # what a fast model writes meanwhile is sent together
                    await asyncio.sleep(_SECONDS_BETWEEN_READS)
            raise GenerationError("the text was ended before it was complete; ask again")
        except Exception as error:  # told to whoever reads `chunks`
            self._arrived.put_nowait(error)

    def abort(self, error: ApiError) -> None:
        """End it with an error.

        Args:
            error: What the reader of `chunks` gets.
        """
        self._arrived.put_nowait(error)

    def close(self) -> None:
        """Write no more, and free what the texts hold. May be repeated."""
        for reader in self._readers:
            reader.cancel()
        for stream in self.streams:
            stream.close()
