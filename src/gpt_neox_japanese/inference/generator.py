"""`TextGenerator`: strings in, strings out; a tokenizer and an engine together."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack, cast, overload

import numpy as np

from gpt_neox_japanese.checks import check_bool, check_ids, check_integer, short_repr
from gpt_neox_japanese.errors import GenerationError, QueueFullError
from gpt_neox_japanese.files.model_directory import DEFAULT, HubKwargs
from gpt_neox_japanese.inference.arguments import GenerationKwargs, Prompt, Prompts, is_one
from gpt_neox_japanese.inference.detokenizer import Detokenizer, place_tokens
from gpt_neox_japanese.inference.outputs import Completion, TextScore
from gpt_neox_japanese.inference.sampling.params import (
    SamplingKwargs,
    SamplingParams,
    check_seed,
    nth_seed,
)
from gpt_neox_japanese.inference.scheduler.engine import Engine
from gpt_neox_japanese.inference.stop_strings import StopStrings, check_stop
from gpt_neox_japanese.inference.text_stream import TextStream
from gpt_neox_japanese.inference.texts import texts_of, warn_if_full
from gpt_neox_japanese.inference.whole_sentences import WholeSentences
from gpt_neox_japanese.tokenizer.codec import END_OF_TEXT, Codec

if TYPE_CHECKING:
    import torch

__all__ = ["TextGenerator"]

_MAX_RETURN_SEQUENCES = 10_000
_MAX_BEGUN = 500  # texts of one call that run or wait at once; the engine lets more wait
# Marks of the training data, not text: like added special tokens they are never shown.
_MARKS = ("<|startoftext|>", "<|separator|>", "<|nottoken|>", END_OF_TEXT)


class TextGenerator:
    r"""Continues Japanese text.

    Many texts are written side by side; what one of them is does not depend on the others. Threads
    may share a generator. It is a context manager: at its end, or at `close()`, its threads end;
    those that help to read long prompts belong to all generators of a process, and stay.

    Every method takes the arguments of `GenerationKwargs`, and raises `GenerationError` if a prompt
    is empty or too long or an argument is out of range, and `TokenizationError` if a prompt holds a
    lone surrogate; both before anything is written.

    Args:
        codec: Encodes prompts and decodes what the engine writes.
        engine: Continues ids.
        sampling_params: Used where a call gives none.

    Example:
        >>> from gpt_neox_japanese import TextGenerator
        >>> generator = TextGenerator.from_pretrained()
        >>> generator.generate("吾輩は猫である。", max_new_tokens=12, temperature=0)
        '\n この猫の中で、最も大きな'
        >>> [len(text) > 0 for text in generator.generate(["雨が", "風が"], seed=1)]
        [True, True]
    """

    def __init__(self, codec: Codec, engine: Engine, sampling_params: SamplingParams) -> None:
        self.codec = codec
        self.engine = engine
        self.sampling_params = sampling_params
        self._hidden = _ids_of(_MARKS, codec) | codec.special_ids
        self._byte_ids = _ids_of((f"<|byte{byte}|>" for byte in range(256)), codec)
        self._source: dict[str, Any] | None = None

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] = DEFAULT,
        *,
        dtype: str | torch.dtype | None = None,
        device: str = "cpu",
        slots: int | None = None,
        threads: int | None = None,
        prompt_lookup: bool = False,
        **hub: Unpack[HubKwargs],
    ) -> TextGenerator:
        """Open a model; without a name, the one that comes with the package.

        Args:
            model: A directory with config.json, model.safetensors, vocab.txt and emoji.json, or a
                Hub id such as "abeja/gpt-neox-japanese-2.7b".
            dtype: "float32" (None), "bfloat16", or on a GPU "float16"; see `load_network`.
            device: Where the model runs, as torch names it.
            slots: Texts that are written at once; the others wait. None for 32 where their keys
                and values take 2 GiB at most, else for 8, on Windows for fewer then.
            threads: Of a CPU; None for one on each core.
            prompt_lookup: Draft several tokens at once from what was written before; the text
                stays the same.
            **hub: Of a repository: `revision`, `cache_dir`, `token` and `local_files_only`; see
                `HubKwargs`.

        Returns:
            A generator; close it, or use it in a `with` statement, to end its threads.

        Raises:
            CheckpointError: Something is missing, broken, does not fit together, or cannot be
                fetched; or an argument is out of range.
            VocabularyError: The vocabulary is missing or broken.
        """
        from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint
        from gpt_neox_japanese.inference.loading.load import load_engine

        run: dict[str, Any] = {
            "dtype": dtype,
            "device": device,
            "slots": slots,
            "threads": threads,
            "prompt_lookup": prompt_lookup,
        }
        checkpoint = Checkpoint.open(model, **hub)
        engine = load_engine(checkpoint, stop_ids=checkpoint.stop_ids, **run)
        generator = cls(checkpoint.codec, engine, checkpoint.sampling_params)
        generator._source = {"model": model, **hub, **run}
        return generator

    @classmethod
    def load(cls, directory: str | os.PathLike[str] | None = None, **options: Any) -> TextGenerator:
        """The older name of `from_pretrained`; None is the model that comes with the package.

        Args:
            directory: See `model` of `from_pretrained`.
            **options: Its other arguments.
        """
        return cls.from_pretrained(DEFAULT if directory is None else directory, **options)

    # ---- Writing ---------------------------------------------------------------------------------

    @overload
    def generate(self, prompt: str, **options: Unpack[GenerationKwargs]) -> str: ...
    @overload
    def generate(self, prompt: Prompts, **options: Unpack[GenerationKwargs]) -> list[str]: ...
    @overload
    def generate(self, prompt: Prompt, **options: Unpack[GenerationKwargs]) -> str: ...
    def generate(
        self, prompt: Prompt | Prompts, **options: Unpack[GenerationKwargs]
    ) -> str | list[str]:
        """The continuation of a prompt, or of each of several, which are written side by side.

        Args:
            prompt: Text or token ids, or a list of either.
            **options: See `GenerationKwargs`. With a seed, the n-th prompt, counted from 0, gets
                `seed + n`.

        Returns:
            A text, or for a list of prompts a list of texts.

        Raises:
            GenerationError: A prompt or an option cannot be used, or a step failed.
            QueueFullError: Too many requests of others wait; ask again later.
            TokenizationError: A prompt holds a lone surrogate.
        """
        one = is_one(prompt)
        if one:
            prompt = [cast(str, prompt)]
        streams = self._side_by_side(cast(Prompts, prompt), options)
        texts = ["".join(texts_of(stream, options)) for stream in streams]
        return texts[0] if one else texts

    @overload
    def generate_details(
        self, prompt: str, *, num_return_sequences: int = 1, **options: Unpack[GenerationKwargs]
    ) -> list[Completion]: ...
    @overload
    def generate_details(
        self, prompt: Prompts, *, num_return_sequences: int = 1, **options: Unpack[GenerationKwargs]
    ) -> list[list[Completion]]: ...
    @overload
    def generate_details(
        self, prompt: Prompt, *, num_return_sequences: int = 1, **options: Unpack[GenerationKwargs]
    ) -> list[Completion]: ...
    def generate_details(
        self,
        prompt: Prompt | Prompts,
        *,
        num_return_sequences: int = 1,
        **options: Unpack[GenerationKwargs],
    ) -> list[Completion] | list[list[Completion]]:
        """Several continuations of a prompt, with ids, offsets and log-probabilities.

        Args:
            prompt: Text or token ids, or a list of either.
            num_return_sequences: How many continuations of each prompt. With a seed, they are what
                `seed`, `seed + 1` and so on give alone, running on from prompt to prompt: the n-th
                of the i-th prompt, both counted from 0, is that of
                `seed + i * num_return_sequences + n`.
            **options: See `GenerationKwargs`.

        Returns:
            The continuations, or for a list of prompts a list of them for each.

        Raises:
            GenerationError: A prompt or an option cannot be used, or a step failed.
            QueueFullError: Too many requests of others wait; ask again later.
            TokenizationError: A prompt holds a lone surrogate.
        """
        check_integer(
            "num_return_sequences",
            num_return_sequences,
            GenerationError,
            minimum=1,
            maximum=_MAX_RETURN_SEQUENCES,
        )
        one = is_one(prompt)
        prompts = [cast(Prompt, prompt)] if one else cast(Prompts, prompt)
        streams = self._side_by_side(prompts, options, num_return_sequences)
        params = self._params_or_own(options.get("sampling_params"))
        has_logprobs = options.get("logprobs", params.logprobs) is not None
        found = [Completion.from_chunks(stream, has_logprobs=has_logprobs) for stream in streams]
        if one:
            return found
        starts = range(0, len(found), num_return_sequences)
        return [found[start : start + num_return_sequences] for start in starts]

    def stream(self, prompt: Prompt, **options: Unpack[GenerationKwargs]) -> Iterator[str]:
        """The continuation of a prompt as it is written.

        Args:
            prompt: Text or token ids.
            **options: See `GenerationKwargs`.

        Yields:
            Whole characters.

        Raises:
            GenerationError: The prompt or an option cannot be used, or a step failed.
            QueueFullError: Too many requests of others wait; ask again later.
            TokenizationError: The prompt holds a lone surrogate.
        """
        return texts_of(self.stream_details(prompt, **options), options)

    async def astream(
        self, prompt: Prompt, **options: Unpack[GenerationKwargs]
    ) -> AsyncIterator[str]:
        """`stream` for asyncio: the event loop does other work while a token is computed.

        Args:
            prompt: Text or token ids.
            **options: See `GenerationKwargs`.

        Yields:
            Whole characters.

        Raises:
            GenerationError: The prompt or an option cannot be used, or a step failed.
            QueueFullError: Too many requests of others wait; ask again later.
            TokenizationError: The prompt holds a lone surrogate.
        """
        with self.stream_details(prompt, **options) as stream:
            async for chunk in stream:
                if chunk.text:
                    yield chunk.text
            warn_if_full(stream, options)

    def stream_details(
        self,
        prompt: Prompt,
        *,
        prompt_logprobs: int | None = None,
        **options: Unpack[GenerationKwargs],
    ) -> TextStream:
        """The continuation as it is written, with ids, offsets and log-probabilities.

        Args:
            prompt: Text or token ids.
            prompt_logprobs: Score the prompt too, with so many of the likeliest ids beside each of
                its own: see `TextStream.prompt_tokens`.
            **options: See `GenerationKwargs`.

        Returns:
            Chunks, for `for` or for `async for`.

        Raises:
            GenerationError: The prompt or an option cannot be used.
            QueueFullError: Too many requests of others wait; ask again later.
            TokenizationError: The prompt holds a lone surrogate.
        """
        return self._begin(self._prompt_ids(prompt), prompt, prompt_logprobs, **options)

    # ---- Scoring ---------------------------------------------------------------------------------

    @overload
    def score(self, text: str, *, top_logprobs: int = 0) -> TextScore: ...
    @overload
    def score(self, text: Prompts, *, top_logprobs: int = 0) -> list[TextScore]: ...
    @overload
    def score(self, text: Prompt, *, top_logprobs: int = 0) -> TextScore: ...
    def score(
        self, text: Prompt | Prompts, *, top_logprobs: int = 0
    ) -> TextScore | list[TextScore]:
        """How likely the model finds a text, or each of several, token by token.

        >>> generator = TextGenerator.from_pretrained()
        >>> good, bad = generator.score(["吾輩は猫である。", "吾輩を猫である。"])
        >>> good.total_logprob > bad.total_logprob
        True

        Args:
            text: Text or token ids, or a list of either.
            top_logprobs: How many of the likeliest ids to tell at each place.

        Returns:
            A score, or for a list of texts a list of scores.

        Raises:
            GenerationError: A text is empty or longer than the model's context, or `top_logprobs`
                is out of range.
            QueueFullError: Too many requests of others wait; ask again later.
            TokenizationError: A text holds a lone surrogate.
        """
        top_logprobs = check_integer(
            "top_logprobs", top_logprobs, GenerationError, minimum=0, maximum=len(self.codec)
        )
        one = is_one(text)
        texts = [cast(Prompt, text)] if one else cast(Prompts, text)
        nothing: GenerationKwargs = {"max_new_tokens": 0, "echo": True}
        scores = [
            TextScore.from_tokens("".join(chunk.text for chunk in stream), stream.prompt_tokens)
            for stream in self._side_by_side(texts, nothing, prompt_logprobs=top_logprobs)
        ]
        return scores[0] if one else scores

    # ---- Its life --------------------------------------------------------------------------------

    def close(self) -> None:
        """End all texts and the threads that write them. What is asked later is an error.

        Threads that help to read long prompts belong to all generators, and stay.
        """
        self.engine.close()

    def __enter__(self) -> TextGenerator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"TextGenerator({len(self.codec):,} ids; {self.engine.description})"

    def __reduce__(self) -> tuple[Any, ...]:
        """What another process makes of it: it opens the same model itself."""
        if self._source is None:
            raise GenerationError(
                "this generator cannot be pickled: it was not made by from_pretrained; make it in"
                " the process that uses it"
            )
        return _open_again, (self._source,)

    # ---- How a text begins -----------------------------------------------------------------------

    def _side_by_side(
        self,
        prompts: Iterable[Prompt],
        options: GenerationKwargs,
        num_of_each: int = 1,
        prompt_logprobs: int | None = None,
    ) -> Iterator[TextStream]:
        """The streams of many prompts, so many of them begun that the engine's queue takes them."""
        ids = [(self._prompt_ids(prompt), prompt) for prompt in prompts]
        if len(ids) > 1:  # all are checked before the first is begun
            most = options.get("max_new_tokens", 200)
            check_integer("max_new_tokens", most, GenerationError, minimum=0)
            for prompt_ids, _ in ids:
                self.engine.check_prompt(prompt_ids, most)
        seed = check_seed(options.get("seed"))
        stop = check_stop(options.get("stop", ()))
        begun: deque[TextStream] = deque()
        every = (each for each in ids for _ in range(num_of_each))
        for number, (prompt_ids, prompt) in enumerate(every):
            if len(begun) == _MAX_BEGUN:
                yield begun.popleft()
            own: GenerationKwargs = {**options, "stop": stop, "seed": nth_seed(seed, number)}
            while True:
                try:
                    stream = self._begin(prompt_ids, prompt, prompt_logprobs, **own)
                    break
                except QueueFullError:
                    if not begun:
                        raise
                yield begun.popleft()  # one text of this call ends first
            if not stop:  # a stop string must be found before more is written
                stream.wait_for_many()
            begun.append(stream)
        yield from begun

    def _begin(
        self,
        prompt_ids: list[int],
        prompt: Prompt,
        prompt_logprobs: int | None,
        *,
        max_new_tokens: int = 200,
        stop: str | Sequence[str] = (),
        end_at_sentence: bool = False,
        seed: int | None = None,
        echo: bool = False,
        sampling_params: SamplingParams | None = None,
        **changes: Unpack[SamplingKwargs],
    ) -> TextStream:
        check_bool("echo", echo, GenerationError)
        check_bool("end_at_sentence", end_at_sentence, GenerationError)
        text = ""
        if echo or end_at_sentence:
            text = prompt if isinstance(prompt, str) else self.codec.decode(prompt_ids)
        detokenizer = Detokenizer(
            self.codec,
            StopStrings(stop),
            sentences=WholeSentences(text) if end_at_sentence else None,
            hidden=self._hidden,
            byte_ids=self._byte_ids,
            start=len(text) if echo else 0,
        )
        tokens = self.engine.submit(
            prompt_ids,
            max_new_tokens=max_new_tokens,
            params=replace(self._params_or_own(sampling_params), **changes),
            seed=seed,
            prompt_logprobs=prompt_logprobs,
        )
        placed = [] if prompt_logprobs is None else self._placed(prompt, prompt_ids)
        return TextStream(tokens, detokenizer, text if echo else "", placed)

    def _params_or_own(self, params: SamplingParams | None) -> SamplingParams:
        if params is not None and not isinstance(params, SamplingParams):
            raise GenerationError(
                f"sampling_params is {short_repr(params)}; give SamplingParams or None"
            )
        return params or self.sampling_params

    def _placed(self, prompt: Prompt, ids: list[int]) -> list[tuple[int, tuple[int, int]]]:
        """The ids of a prompt, and where in its text each of them stands."""
        if isinstance(prompt, str):
            offsets = self.codec.encode_with_offsets(prompt).offsets.tolist()
        else:
            offsets = place_tokens(self.codec, ids)
        return list(zip(ids, offsets, strict=True))

    def _prompt_ids(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            return self.codec.encode(prompt)
        if isinstance(prompt, (bytes, Mapping)) or not isinstance(prompt, (Sequence, np.ndarray)):
            raise GenerationError(
                f"the prompt is {short_repr(prompt)}; it must be a string or a list of token ids"
            )
        return check_ids("the prompt", prompt, GenerationError, len(self.codec))


def _open_again(source: dict[str, Any]) -> TextGenerator:
    return TextGenerator.from_pretrained(**source)


def _ids_of(tags: Iterable[str], codec: Codec) -> frozenset[int]:
    # Not of the vocabulary alone: an added token may have taken a tag's id.
    found = (codec.token_to_id(tag) for tag in tags)
    return frozenset(token_id for token_id in found if token_id is not None)
