"""What a checkpoint directory says before its weights are read: vocabulary, config, sampling."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

from gpt_neox_japanese.errors import CheckpointError, GenerationError
from gpt_neox_japanese.files.model_config import (
    read_config,
    read_generation_config,
    refuse_adapter,
    sizes,
)
from gpt_neox_japanese.files.model_directory import DEFAULT, HubKwargs, find_model
from gpt_neox_japanese.inference.sampling.params import SamplingParams
from gpt_neox_japanese.tokenizer.codec import END_OF_TEXT, Codec
from gpt_neox_japanese.tokenizer.model_check import check_model
from gpt_neox_japanese.tokenizer.vocabulary import EMOJI_FILE, VOCAB_FILE

__all__ = ["Checkpoint"]

_FILES = ("config.json", VOCAB_FILE, EMOJI_FILE)

# Sampling where a checkpoint recommends nothing.
_FALLBACK: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95}


@dataclass(frozen=True)
class Checkpoint:
    """A directory whose parts have been found to fit together.

    Attributes:
        directory: Where it lies.
        codec: Its tokenizer.
        config: `config.json`.
        num_ids: Ids that are read and written are below it. The model may have more rows, which
            pad it to a round number and mean nothing.
        stop_ids: Ids that end a text.
        sampling_params: What `generation_config.json` recommends.
    """

    directory: Path
    codec: Codec
    config: dict[str, Any]
    num_ids: int
    stop_ids: frozenset[int]
    sampling_params: SamplingParams

    @classmethod
    def open(cls, model: str | PathLike[str] = DEFAULT, **hub: Unpack[HubKwargs]) -> Checkpoint:
        """Open a model.

        Args:
            model: A directory, a Hub id, or "default".
            **hub: See `HubKwargs`.

        Returns:
            The checkpoint, without its weights.

        Raises:
            CheckpointError: Something is missing, broken, or does not fit together.
            VocabularyError: The vocabulary is missing or broken.
        """
        directory = find_model(model, **hub)
        _check_complete(directory)
        codec = Codec.load(directory)
        config = read_config(directory)
        config = sizes(config) | config
        num_ids = check_model(codec, config, directory)
        generation = read_generation_config(directory)
        return cls(
            directory,
            codec,
            config,
            num_ids,
            frozenset(i for i in _stop_ids(codec, config, generation) if 0 <= i < num_ids),
            _recommended_sampling(generation, directory / "generation_config.json"),
        )


def _check_complete(directory: Path) -> None:
    """Name all files at once that are missing; weights have several names, and are looked for."""
    refuse_adapter(directory)
    missing = [name for name in _FILES if not os.path.lexists(directory / name)]
    if missing:
        raise CheckpointError(
            f"{str(directory)!r} has no {', no '.join(missing)}; a model is a directory with"
            f" {', '.join(_FILES)} and model.safetensors"
        )


def _stop_ids(
    codec: Codec, config: Mapping[str, Any], generation: Mapping[str, Any]
) -> frozenset[int]:
    """The end-of-text id, and whatever else the model ends its texts with, ordinary text too."""
    ends = generation.get("eos_token_id", config.get("eos_token_id"))
    ids = {end for end in (ends if isinstance(ends, list) else [ends]) if isinstance(end, int)}
    end_of_text = codec.token_to_id(END_OF_TEXT)
    return frozenset(ids if end_of_text is None else {*ids, end_of_text})


def _recommended_sampling(config: Mapping[str, Any], path: Path) -> SamplingParams:
    """What `generation_config.json` says of sampling; our own where it is made for greedy."""
    if not config.get("do_sample", False):
        return SamplingParams(**_FALLBACK)
    names = [field.name for field in fields(SamplingParams)]
    given = {name: config[name] for name in names if config.get(name) is not None}
    try:
        return SamplingParams(**{**_FALLBACK, **given})
    except GenerationError as error:
        raise CheckpointError(f"{str(path)!r}: {error}") from error
