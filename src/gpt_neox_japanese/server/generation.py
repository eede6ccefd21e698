"""The texts of one request, written side by side and read as one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

from gpt_neox_japanese.inference.outputs import TextChunk
from gpt_neox_japanese.inference.text_stream import TextStream
from gpt_neox_japanese.server.error_responses import ApiError

__all__ = ["Generation"]


class Generation:
    """Reads many streams, and hands on what comes, whichever it comes from.

    Made, read and closed in one event loop.

    Args:
        streams: Begun; closed by `close`.
        prompts: The ids of each prompt; as many streams continue each of them.
        seconds_between_reads: Asked after each read: what a fast model writes in that time is
            handed on together.

    Attributes:
        streams: As above.
        num_written: Tokens so far.
        seconds_to_first_token: Since this was made; None before.
        seconds_of_texts: Of each text that is complete, from where it got its slot to its end.
    """

    def __init__(
        self,
        streams: Sequence[TextStream],
        prompts: Sequence[list[int]],
        seconds_between_reads: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.streams = streams
        self._prompts = prompts
        self._seconds_between_reads = seconds_between_reads
        self.num_written = 0
        self.seconds_to_first_token: float | None = None
        self.seconds_of_texts: list[float] = []
        self._begun = time.monotonic()
        self._open = dict(enumerate(streams))
        self._error: ApiError | None = None
        self._loop = asyncio.get_running_loop()
        self._wake_up = asyncio.Event()
        self._wants_any = True  # token; otherwise it is only woken for the end of a text
        for stream in streams:
            stream.notify_with(partial(self._notify, stream))

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
        """What is written, the texts that have grown in order.

        Yields:
            Everything that is there: which of the streams, and its next chunk. The last chunk of
            each stream has a `finish_reason`.

        Raises:
            GenerationError: A text cannot go on.
            ApiError: It was aborted.
        """
        while self._open:
            # Before the texts are looked at, so that nothing arrives unseen.
            self._wake_up.clear()
            self._wants_any = True
            if self._error is not None:
                raise self._error
            chunks = self._read()
            if chunks:
                self._wants_any = False
                yield chunks
                if not self._open:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._seconds_between_reads()):
                        await self._wake_up.wait()
            else:
                await self._wake_up.wait()

    def _read(self) -> list[tuple[int, TextChunk]]:
        """Everything that is there."""
        now = time.monotonic()
        found = []
        for index, stream in list(self._open.items()):
            for chunk in stream.read_ready():
                found.append((index, chunk))
                self.num_written += len(chunk.tokens)
                if chunk.finish_reason is not None:
                    self.num_written += stream.stop_token is not None
                    self.seconds_of_texts.append(now - (stream.started_at or now))
                    del self._open[index]
        if self.num_written and self.seconds_to_first_token is None:
            self.seconds_to_first_token = self.seconds
        return found

    def _notify(self, stream: TextStream) -> None:
        """Called by the engine, whose time is dear, after every token."""
        if self._wants_any or stream.has_ended:
            self._wants_any = False
            with contextlib.suppress(RuntimeError):  # a closed event loop has no readers
                self._loop.call_soon_threadsafe(self._wake_up.set)

    def abort(self, error: ApiError) -> None:
        """End it with an error.

        Args:
            error: What the reader of `chunks` gets.
        """
        self._error = error
        self._wake_up.set()

    def close(self) -> None:
        """Write no more, and free what the texts hold. May be repeated."""
        for stream in self.streams:
            stream.close()
