"""The text by which a model is quantised: the user's, or what the model writes itself.

A model's own text needs no files and is of its own vocabulary and style. Sampled as it comes, at
temperature 1, it meets the matrices as real text does, and quantises about as well.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint
from gpt_neox_japanese.inference.loading.load import load_engine
from gpt_neox_japanese.inference.sampling.params import SamplingParams

__all__ = ["NUM_TOKENS", "windows_of_own_text", "windows_of_texts"]

NUM_TOKENS = 18_432
"""Tokens of a calibration text. Four times as many improve little."""

_MIN_TOKENS = NUM_TOKENS // 4
_MAX_WINDOW = 512
_MAX_AT_ONCE = 32  # texts that are asked of the engine


def windows_of_own_text(checkpoint: Checkpoint) -> NDArray[np.int64]:
    """Let a model write its own calibration text. The same model writes the same.

    Args:
        checkpoint: Of the model.

    Returns:
        int64 [windows, tokens].

    Raises:
        CheckpointError: The weights cannot be read.
        VocabularyError: No token ends a text; before it, a text begins.
    """
    size = _window(checkpoint)
    beginning = checkpoint.codec.eot_token
    windows = np.full((NUM_TOKENS // size, size), beginning, np.int64)
    params = SamplingParams()
    # No stop ids: what follows the end of a text is the next one.
    with load_engine(checkpoint, stop_ids=()) as engine:
        for first in range(0, len(windows), _MAX_AT_ONCE):
            some = windows[first : first + _MAX_AT_ONCE]
            streams = [
                engine.submit([beginning], max_new_tokens=size - 1, params=params, seed=seed)
                for seed in range(first, first + len(some))
            ]
            for window, stream in zip(some, streams, strict=True):
                window[1:] = [choice.id for choice in stream]
    return windows


def windows_of_texts(checkpoint: Checkpoint, texts: Iterable[str]) -> NDArray[np.int64]:
    """Cut the first texts into windows, each text begun with the id that ends one.

    Args:
        checkpoint: Of the model that is to be quantised.
        texts: Read until there are `NUM_TOKENS` tokens.

    Returns:
        int64 [windows, tokens].

    Raises:
        DataError: The texts are too short.
        VocabularyError: No token ends a text.
    """
    size = _window(checkpoint)
    parts, count = [np.empty(0, np.int32)], 0
    for text in texts:
        ids = checkpoint.codec.encode_to_numpy(text)
        parts += [np.array([checkpoint.codec.eot_token], np.int32), ids]
        count += 1 + len(ids)
        if count >= NUM_TOKENS:
            break
    if count < _MIN_TOKENS:
        raise DataError(
            f"the calibration text has {count:,} tokens, at least {_MIN_TOKENS:,} are needed; give"
            " more text, or let the model write its own"
        )
    num_windows = min(count, NUM_TOKENS) // size
    joined = np.concatenate(parts)[: num_windows * size]
    return joined.reshape(num_windows, size).astype(np.int64)


def _window(checkpoint: Checkpoint) -> int:
    return min(_MAX_WINDOW, int(checkpoint.config["max_position_embeddings"]))
