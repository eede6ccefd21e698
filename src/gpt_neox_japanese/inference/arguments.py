"""What the methods of `TextGenerator` take: one prompt or several, and options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.inference.sampling.params import SamplingKwargs, SamplingParams

__all__ = ["GenerationKwargs", "Prompt", "Prompts", "is_one"]

Prompt: TypeAlias = str | list[int] | NDArray[np.integer[Any]]
"""Text, or token ids."""

Prompts: TypeAlias = list[str] | list[list[int]] | list[NDArray[np.integer[Any]]]
"""Several of them."""


class GenerationKwargs(SamplingKwargs, total=False):
    """What every method of `TextGenerator` that writes takes, beside prompts.

    Attributes:
        max_new_tokens: How many tokens to write at most; 200 if not given, and 0 writes nothing.
        stop: The text ends before the first of these strings, which is no part of it.
        end_at_sentence: Drop the last sentence if `max_new_tokens` or the context broke it off, and
            close brackets that are open before it. What a stream gives waits for the end of its
            sentence. A text without any whole sentence stays as it is.
        seed: The same seed gives the same text; without one each text is another.
        echo: The text begins with the prompt.
        sampling_params: How each token is chosen. If given, none of the model's own options
            remain (`TextGenerator.sampling_params`). Fields of `SamplingParams` may also be given
            by name, and then take the place of what it says.
    """

    max_new_tokens: int
    stop: str | Sequence[str]
    end_at_sentence: bool
    seed: int | None
    echo: bool
    sampling_params: SamplingParams | None


def is_one(prompt: Prompt | Prompts) -> bool:
    """Whether it is one prompt rather than a list of them.

    Args:
        prompt: What a caller gave.

    Returns:
        False of an empty list: it is one of no prompts.
    """
    if isinstance(prompt, (list, tuple)):
        return bool(prompt) and not isinstance(prompt[0], (str, Sequence, np.ndarray))
    return True
