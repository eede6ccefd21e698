"""Strings in, strings out: a tokenizer and an engine together."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Unpack

from gpt_neox_japanese.checks import check_bool, check_integer, check_text
from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.detokenizer import Detokenizer, OutputToken, TextChunk
from gpt_neox_japanese.inference.sampling.params import (
    SamplingKwargs,
    SamplingParams,
    check_seed,
)
from gpt_neox_japanese.inference.scheduler.engine import Engine
from gpt_neox_japanese.inference.scheduler.request import FinishReason
from gpt_neox_japanese.inference.scheduler.token_stream import TokenStream
from gpt_neox_japanese.inference.stop_strings import StopStrings
from gpt_neox_japanese.tokenizer.codec import END_OF_TEXT, Codec

if TYPE_CHECKING:
    import torch

__all__ = ["Completion", "TextGenerator", "TextStream"]

_MAX_RETURN_SEQUENCES = 1000  # as many as the engine lets wait
# Marks of the training data, not text: like added special tokens they are never shown.
_MARKS = ("<|startoftext|>", "<|separator|>", "<|nottoken|>", END_OF_TEXT)


@dataclass(frozen=True)
class Completion:
    """A whole continuation.

    Attributes:
        text: What was written, with the prompt before it where that was asked for.
        ids: Every id that was chosen, those of the stop string too.
        offsets: For each id, where its text begins and ends in `text`.
        logprobs: For each id its log-probability; None where they were not asked for.
        top_logprobs: For each id the likeliest ids and their log-probabilities.
        finish_reason: "stop" at a stop string or stop id, "length" where `max_new_tokens` or the
            context ended the text.
    """

    text: str
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    logprobs: tuple[float, ...] | None
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] | None
    finish_reason: FinishReason

    @classmethod
    def of(cls, pieces: Iterable[TextChunk]) -> Completion:
        """Put all pieces of a stream together."""
        texts: list[str] = []
        tokens: list[OutputToken] = []
        reason: FinishReason | None = None
        for text, some, reason in pieces:  # noqa: B007
            texts.append(text)
            tokens.extend(some)
        assert reason is not None
        logprobs = tuple(token.logprob for token in tokens if token.logprob is not None)
        asked = len(logprobs) == len(tokens) > 0
        return cls(
            text="".join(texts),
            ids=tuple(token.id for token in tokens),
            offsets=tuple((token.start, token.end) for token in tokens),
            logprobs=logprobs if asked else None,
            top_logprobs=tuple(token.top for token in tokens) if asked else None,
            finish_reason=reason,
        )


class TextStream(Iterator[TextChunk]):
    """The pieces of one text as they are written. The last of them has a `finish_reason`.

    The engine stops working for it at a stop string, when it is closed, at the end of a `with`
    block, or when nobody holds it any more.
    """

    def __init__(self, tokens: TokenStream, transcript: Detokenizer, echo: str = "") -> None:
        self._tokens = tokens
        self._transcript = transcript
        self._echo = echo
        self._ended = False
        self._error: GenerationError | None = None
        self._lock = threading.Lock()  # two threads that read one stream get pieces in turn

    def __next__(self) -> TextChunk:
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopIteration
            try:
                return self._next_piece()
            except BaseException as error:
                # How much of a token was taken in is not known: nothing may follow it.
                self._error = _as_generation_error(error)
                self.close()
                raise

    @property
    def context_is_full(self) -> bool:
        """Whether the text ended before `max_new_tokens` because the model reads no more tokens."""
        return not self._transcript.stopped and self._tokens.context_is_full

    def _next_piece(self) -> TextChunk:
        if self._echo:
            echo, self._echo = self._echo, ""
            return TextChunk(echo)
        for choice in self._tokens:
            piece = self._transcript.feed(choice)
            if piece.finish_reason:
                self.close()
            if piece.text or piece.tokens or piece.finish_reason:
                return piece
        self._ended = True
        return self._transcript.finish(self._tokens.finish_reason or "length")

    def close(self) -> None:
        """Write no more. Any thread may call it, at any time."""
        self._ended = True
        self._tokens.cancel()

    def __enter__(self) -> TextStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class TextGenerator:
    """Continues Japanese text.

    Example:
        >>> from gpt_neox_japanese import TextGenerator
        >>> generator = TextGenerator.load()
        >>> generator.generate("吾輩は猫である。", max_new_tokens=40, seed=1)  # doctest: +SKIP

    Its methods share these arguments:

    - `prompt`: text to continue; tags spelled out in it are read as text;
    - `max_new_tokens`: how many tokens to write at most;
    - `stop`: the text ends before the first of these strings, which is no part of it;
    - `seed`: the same seed gives the same text;
    - `echo`: the text begins with the prompt;
    - `options`: how each token is chosen; none takes `sampling`;
    - any field of `SamplingParams` by name, in place of what `options` says.

    They raise `GenerationError` if the prompt is empty or too long or an option is out of range,
    and `TokenizationError` if the prompt holds a lone surrogate; both before anything is written.

    Args:
        codec: Encodes prompts and decodes what the engine writes.
        engine: Continues ids.
        sampling: The options used where a call gives none.
    """

    def __init__(self, codec: Codec, engine: Engine, sampling: SamplingParams) -> None:
        self.codec = codec
        self.engine = engine
        self.sampling = sampling
        self._hidden = _ids_of(_MARKS, codec) | codec.special_ids
        self._byte_ids = _ids_of((f"<|byte{byte}|>" for byte in range(256)), codec)

    @classmethod
    def load(
        cls,
        directory: str | Path | None = None,
        *,
        dtype: str | torch.dtype | None = None,
        device: str = "cpu",
        slots: int | None = None,
        threads: int | None = None,
        prompt_lookup: bool = False,
    ) -> TextGenerator:
        """Open a checkpoint directory; without one, the model that comes with the package.

        Args:
            directory: Holds config.json, model.safetensors, vocab.txt and emoji.json.
            dtype: "float32" (None), "bfloat16", or on a GPU "float16"; see `load_network`.
            device: Where the model runs, as torch names it.
            slots: Texts that are written at once; the others wait. None for 8, on Windows for
                fewer where 8 would be charged more than 2 GiB.
            threads: Of a CPU; None for one on each core.
            prompt_lookup: Guess several tokens at once from what was written before; the text
                stays the same.

        Raises:
            CheckpointError: Something is missing, broken, or does not fit together.
            VocabularyError: The vocabulary is missing or broken.
        """
        from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint
        from gpt_neox_japanese.inference.loading.load import load_engine

        checkpoint = Checkpoint.open(directory)
        engine = load_engine(
            checkpoint,
            stop_ids=checkpoint.stop_ids,
            dtype=dtype,
            device=device,
            slots=slots,
            threads=threads,
            prompt_lookup=prompt_lookup,
        )
        return cls(checkpoint.codec, engine, checkpoint.sampling)

    def close(self) -> None:
        """End all texts and the threads that write them. What is asked later is an error."""
        self.engine.close()

    def __enter__(self) -> TextGenerator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def generate(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 200,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
        echo: bool = False,
        options: SamplingParams | None = None,
        **sampling: Unpack[SamplingKwargs],
    ) -> str:
        """The whole continuation of a prompt."""
        return "".join(
            self.stream(
                prompt,
                max_new_tokens=max_new_tokens,
                stop=stop,
                seed=seed,
                echo=echo,
                options=options,
                **sampling,
            )
        )

    def stream(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 200,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
        echo: bool = False,
        options: SamplingParams | None = None,
        **sampling: Unpack[SamplingKwargs],
    ) -> Iterator[str]:
        """Yield the continuation of a prompt as it is written, whole characters only."""
        pieces = self.stream_details(
            prompt,
            max_new_tokens=max_new_tokens,
            stop=stop,
            seed=seed,
            echo=echo,
            options=options,
            **sampling,
        )
        return _texts(pieces, max_new_tokens)

    def generate_details(
        self,
        prompt: str,
        *,
        num_return_sequences: int = 1,
        max_new_tokens: int = 200,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
        echo: bool = False,
        options: SamplingParams | None = None,
        **sampling: Unpack[SamplingKwargs],
    ) -> list[Completion]:
        """Several continuations of a prompt, with ids, offsets and log-probabilities.

        The n-th of them, counted from 0, is what `seed + n` gives alone.
        """
        check_integer(
            "num_return_sequences",
            num_return_sequences,
            GenerationError,
            minimum=1,
            maximum=_MAX_RETURN_SEQUENCES,
        )
        check_seed(seed)
        streams = [
            self.stream_details(
                prompt,
                max_new_tokens=max_new_tokens,
                stop=stop,
                seed=None if seed is None else seed + number,
                echo=echo,
                options=options,
                **sampling,
            )
            for number in range(num_return_sequences)
        ]
        return [Completion.of(stream) for stream in streams]

    def stream_details(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 200,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
        echo: bool = False,
        options: SamplingParams | None = None,
        **sampling: Unpack[SamplingKwargs],
    ) -> TextStream:
        """The continuation as it is written, with ids, offsets and log-probabilities."""
        check_text("prompt", prompt, GenerationError)
        check_bool("echo", echo, GenerationError)
        transcript = Detokenizer(
            self.codec,
            StopStrings(stop),
            hidden=self._hidden,
            byte_ids=self._byte_ids,
            start=len(prompt) if echo else 0,
        )
        tokens = self.engine.submit(
            self.codec.encode(prompt),
            max_new_tokens=max_new_tokens,
            options=self._options(options, sampling),
            seed=seed,
        )
        return TextStream(tokens, transcript, prompt if echo else "")

    def _options(self, options: SamplingParams | None, changes: SamplingKwargs) -> SamplingParams:
        if options is not None and not isinstance(options, SamplingParams):
            raise GenerationError(f"options is {options!r:.60}; it must be SamplingParams or None")
        return replace(options or self.sampling, **changes)


def _texts(pieces: TextStream, max_new_tokens: int) -> Iterator[str]:
    for piece in pieces:
        if piece.text:
            yield piece.text
    if pieces.context_is_full:  # nothing else that the caller sees tells
        warnings.warn(
            f"the model's context is full: the text ends before max_new_tokens={max_new_tokens};"
            " shorten the prompt, or ask for less",
            stacklevel=2,
        )


def _as_generation_error(error: BaseException) -> GenerationError:
    """What a stream says when it is read again after an exception ended it."""
    if isinstance(error, GenerationError):
        return error
    return GenerationError(f"reading this text was ended by {error!r}; begin it again")


def _ids_of(tags: Iterable[str], codec: Codec) -> frozenset[int]:
    ids = (codec.token_to_id(tag) for tag in tags)
    return frozenset(i for i in ids if i is not None)
