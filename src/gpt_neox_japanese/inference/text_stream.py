"""One text as it is written: what the owner of a request reads, in strings."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.detokenizer import Detokenizer
from gpt_neox_japanese.inference.outputs import TextChunk
from gpt_neox_japanese.inference.sampling.sampler import Choice
from gpt_neox_japanese.inference.scheduler.token_stream import TokenStream

__all__ = ["TextStream"]


class TextStream(Iterator[TextChunk], AsyncIterator[TextChunk]):
    """The chunks of one text, for `for` or for `async for`. The last has a `finish_reason`.

    The engine stops working for it at a stop string, when it is closed, at the end of a `with`
    block, or when nobody holds it any more.

    Args:
        tokens: The chosen ids.
        detokenizer: Makes text of them, and finds stop strings.
        echo: What is given out first.
    """

    def __init__(self, tokens: TokenStream, detokenizer: Detokenizer, echo: str = "") -> None:
        self._tokens = tokens
        self._detokenizer = detokenizer
        self._echo = echo
        self._ended = False
        self._error: GenerationError | None = None
        self._lock = threading.RLock()  # two threads that read one stream get chunks in turn
        self._is_read = False

    @property
    def context_is_full(self) -> bool:
        """Whether the text ended before `max_new_tokens` because the model reads no more tokens."""
        return not self._detokenizer.stopped and self._tokens.context_is_full

    def __next__(self) -> TextChunk:
        """The next chunk; waits for it.

        Raises:
            GenerationError: The text cannot go on; see `TokenStream`.
        """
        self._tokens.check_process()  # first: a forked lock may be held by nobody
        with self._lock:
            if self._is_read:  # by the code that a signal handler has interrupted
                raise GenerationError(
                    "this text is being read; a signal handler cannot read it too"
                )
            self._is_read = True
            try:
                chunk = self._before_tokens()
                while chunk is None:
                    try:
                        chunk = self._chunk_of(next(self._tokens, None))
                    except BaseException as error:
                        self._fail(error)
                        raise
                return chunk
            finally:
                self._is_read = False

    async def __anext__(self) -> TextChunk:
        """The next chunk; the event loop does other work until it is there.

        Raises:
            GenerationError: As `__next__`.
        """
        try:
            chunk = self._before_tokens()
        except StopIteration:
            raise StopAsyncIteration from None
        while chunk is None:
            choice = await anext(self._tokens, None)
            try:
                chunk = self._chunk_of(choice)
            except BaseException as error:
                self._fail(error)
                raise
        return chunk

    def wait_for_many(self) -> None:
        """See `TokenStream.wait_for_many`."""
        self._tokens.wait_for_many()

    def close(self) -> None:
        """Write no more. Any thread may call it, at any time."""
        self._ended = True
        self._tokens.cancel()

    def __enter__(self) -> TextStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _before_tokens(self) -> TextChunk | None:
        """What comes without another token: an error, the end, or the prompt."""
        if self._error is not None:
            raise self._error
        if self._ended:
            raise StopIteration
        if self._echo:
            echo, self._echo = self._echo, ""
            return TextChunk(echo)
        return None

    def _chunk_of(self, choice: Choice | None) -> TextChunk | None:
        """What the next choice makes certain, if anything; None is the end."""
        if choice is None:
            self._ended = True
            return self._detokenizer.finish(self._tokens.finish_reason or "length")
        chunk = self._detokenizer.feed(choice)
        if chunk.finish_reason:
            self.close()
        return chunk if chunk.text or chunk.tokens or chunk.finish_reason else None

    def _fail(self, error: BaseException) -> None:
        """End after an exception: how much of a token was taken in is not known."""
        self._error = (
            error
            if isinstance(error, GenerationError)
            else GenerationError(f"reading this text was ended by {error!r}; begin it again")
        )
        self.close()
