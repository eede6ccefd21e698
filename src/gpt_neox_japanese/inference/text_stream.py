"""One text as it is written: what the owner of a request reads, in strings."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.detokenizer import Detokenizer
from gpt_neox_japanese.inference.outputs import OutputToken, TextChunk
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
        prompt: The ids of a prompt that is scored, and where in its text each begins and ends.
    """

    def __init__(
        self,
        tokens: TokenStream,
        detokenizer: Detokenizer,
        echo: str = "",
        prompt: Sequence[tuple[int, tuple[int, int]]] = (),
    ) -> None:
        self._tokens = tokens
        self._detokenizer = detokenizer
        self._echo = echo
        self._prompt = prompt
        self._ended = False
        self._error: GenerationError | None = None
        self._lock = threading.RLock()  # two threads that read one stream get chunks in turn
        self._is_read = False

    @property
    def context_is_full(self) -> bool:
        """Whether the text ended before `max_new_tokens` because the model reads no more tokens."""
        return not self._detokenizer.stopped and self._tokens.context_is_full

    @property
    def prompt_tokens(self) -> tuple[OutputToken, ...]:
        """The prompt's tokens with their log-probabilities, the first without.

        Empty if `prompt_logprobs` was not asked for; complete once a chunk with tokens or the last
        chunk is there. Offsets are those of the prompt's text.
        """
        choices = [Choice(token_id) for token_id, _ in self._prompt[:1]]
        choices += self._tokens.prompt_choices
        return tuple(
            OutputToken(choice.id, *place, choice.logprob, choice.top)
            for choice, (_, place) in zip(choices, self._prompt, strict=False)
        )

    @property
    def stop_token(self) -> OutputToken | None:
        """The stop id that ended the text, which is no part of it; None if something else did."""
        choice = None if self._detokenizer.stopped else self._tokens.stop_choice
        if choice is None:
            return None
        end = self._detokenizer.num_shown
        return OutputToken(choice.id, end, end, choice.logprob, choice.top)

    @property
    def num_prompt_tokens(self) -> int:
        """How many tokens the prompt has."""
        return self._tokens.num_prompt_tokens

    @property
    def num_cached_tokens(self) -> int:
        """How many of them did not have to be computed again."""
        return self._tokens.num_cached_tokens

    @property
    def has_ended(self) -> bool:
        """See `TokenStream.has_ended`."""
        return self._tokens.has_ended

    @property
    def started_at(self) -> float | None:
        """See `TokenStream.started_at`."""
        return self._tokens.started_at

    @property
    def queue_position(self) -> int:
        """See `TokenStream.queue_position`."""
        return self._tokens.queue_position

    def __next__(self) -> TextChunk:
        """The next chunk; waits for it.

        Raises:
            GenerationError: The text cannot go on; see `TokenStream`.
        """
        self._tokens.check_process()  # first: a forked lock may be held by nobody
        with self._lock:
            self._begin_to_read()
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
        self._begin_to_read()
        try:
            chunk = self._before_tokens()
            while chunk is None:
                choice = await anext(self._tokens, None)
                try:
                    chunk = self._chunk_of(choice)
                except BaseException as error:
                    self._fail(error)
                    raise
            return chunk
        except StopIteration:
            raise StopAsyncIteration from None
        finally:
            self._is_read = False

    def read_ready(self) -> list[TextChunk]:
        """Every chunk that is there, without waiting for more.

        Returns:
            The next chunks in order, the last of the text among them once it is there; often none.

        Raises:
            GenerationError: The text had ended before, or it cannot go on; see `TokenStream`.
        """
        self._begin_to_read()
        chunks: list[TextChunk] = []
        try:
            while True:
                chunk = self._before_tokens()
                if chunk is None:
                    if not self._tokens.has_more:
                        break
                    chunk = self._chunk_of(next(self._tokens, None))
                if chunk is not None:
                    chunks.append(chunk)
        except StopIteration:
            if not chunks:
                raise GenerationError("this text has ended; begin another one") from None
        except BaseException as error:
            self._fail(error)
            if not chunks:  # otherwise the next call tells it
                raise
        finally:
            self._is_read = False
        return chunks

    def notify_with(self, notify: Callable[[], object]) -> None:
        """See `TokenStream.notify_with`; for readers that call `read_ready`."""
        self._tokens.notify_with(notify)

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

    def _begin_to_read(self) -> None:
        """Refuse a second reader: code that a signal handler interrupts, or another task, is one.

        Threads take turns.
        """
        if self._is_read:
            raise GenerationError(
                "this text is being read already; neither a signal handler nor a second task can"
                " read it too"
            )
        self._is_read = True

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
