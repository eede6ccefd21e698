"""Strings in, strings out: a tokenizer and an engine together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch

from gpt_neox_japanese.errors import CheckpointError, GenerationError
from gpt_neox_japanese.inference.checkpoint import Checkpoint
from gpt_neox_japanese.inference.engine import Engine
from gpt_neox_japanese.inference.network import Network, Shape
from gpt_neox_japanese.inference.sampling import SamplingOptions
from gpt_neox_japanese.inference.weights import read_weights
from gpt_neox_japanese.tokenizer.codec import Codec

__all__ = ["TextGenerator"]

_END = "<|endoftext|>"
# Marks of the training data, not text: they are never shown.
_MARKS = ("<|startoftext|>", "<|separator|>", "<|nottoken|>", _END)


class TextGenerator:
    """Continues Japanese text.

    Example:
        >>> from gpt_neox_japanese import TextGenerator
        >>> generator = TextGenerator.load()
        >>> generator.generate("吾輩は猫である。", max_new_tokens=40, seed=1)  # doctest: +SKIP

    Args:
        codec: Encodes prompts and decodes what the engine writes.
        engine: Continues ids.
        sampling: The options used where a call gives none.
    """

    def __init__(self, codec: Codec, engine: Engine, sampling: SamplingOptions) -> None:
        self.codec = codec
        self.sampling = sampling
        self.engine = engine
        self._mark_ids = _ids_of(_MARKS, codec)

    @classmethod
    def load(
        cls,
        directory: str | Path | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> TextGenerator:
        """Open a checkpoint directory; without one, the model that comes with the package.

        Args:
            directory: Holds config.json, model.safetensors, vocab.txt and emoji.json.
            dtype: What the weights are converted to.
            device: Where the model runs, as torch names it.

        Raises:
            CheckpointError: Something is missing, broken, or does not fit together.
            VocabularyError: The vocabulary is missing or broken.
        """
        _check_device(device)
        checkpoint = Checkpoint.open(directory)
        network = Network(
            Shape.of(checkpoint.config),
            read_weights(checkpoint.directory),
            dtype=dtype,
            device=device,
        )
        engine = Engine(network, stop_ids=_ids_of([_END], checkpoint.codec))
        return cls(checkpoint.codec, engine, checkpoint.sampling)

    def generate(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 200,
        options: SamplingOptions | None = None,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> str:
        """The whole continuation of a prompt; see `stream`."""
        return "".join(
            self.stream(
                prompt, max_new_tokens=max_new_tokens, options=options, stop=stop, seed=seed
            )
        )

    def stream(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 200,
        options: SamplingOptions | None = None,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Iterator[str]:
        """Yield the continuation of a prompt piece by piece, whole characters only.

        Args:
            prompt: Text to continue. Tags spelled out in it are read as text.
            max_new_tokens: How many tokens to write at most.
            options: How each token is chosen; none takes `sampling`.
            stop: The text ends before the first of these strings, which is not part of it.
            seed: The same seed gives the same text.

        Raises:
            GenerationError: The prompt is empty or too long, or an option is out of range.
            TokenizationError: The prompt holds a lone surrogate.
        """
        if not all(stop):
            raise GenerationError("a stop string is empty; leave it out")
        ids = self.engine.generate(
            self.codec.encode(prompt).tolist(),
            max_new_tokens=max_new_tokens,
            options=options or self.sampling,
            seed=seed,
        )
        return until_stop(self._decode(ids), stop)

    def _decode(self, ids: Iterator[int]) -> Iterator[str]:
        # A model may write bytes that form no character; those are left out rather than shown.
        decoder = self.codec.stream_decoder(errors="ignore")
        for token_id in ids:
            if token_id not in self._mark_ids:
                yield decoder.feed(token_id)
        yield decoder.finish()


def until_stop(pieces: Iterable[str], stop: Sequence[str]) -> Iterator[str]:
    """Pass text on as early as possible, but end before the first stop string.

    Text that may be the beginning of a stop string is held back until it is known not to be.
    """
    held = ""
    for piece in pieces:
        held += piece
        found = [at for at in (held.find(string) for string in stop) if at >= 0]
        if found:
            held = held[: min(found)]
            break
        ready = len(held) - max((_overlap(held, string) for string in stop), default=0)
        if ready:
            yield held[:ready]
            held = held[ready:]
    if held:
        yield held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper beginning of `stop` that `text` ends with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"device {device!r} cannot be used here: {reason}") from error


def _ids_of(tags: Iterable[str], codec: Codec) -> frozenset[int]:
    ids = codec.vocabulary.ids
    return frozenset(ids[tag] for tag in tags if tag in ids)
