"""What a checkpoint directory says before its weights are read: vocabulary, config, sampling."""

from __future__ import annotations

from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

from gpt_neox_japanese.arguments import shown
from gpt_neox_japanese.assets import default_model_directory
from gpt_neox_japanese.errors import CheckpointError, GenerationError
from gpt_neox_japanese.inference.options import SamplingOptions
from gpt_neox_japanese.json_files import read_object
from gpt_neox_japanese.tokenizer.codec import Codec

__all__ = ["Checkpoint"]

# Sampling where a checkpoint recommends nothing.
_FALLBACK: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95}


@dataclass(frozen=True)
class Checkpoint:
    """A directory whose parts have been found to fit together.

    Attributes:
        directory: Where it lies.
        codec: Its tokenizer.
        config: `config.json`.
        sampling: What `generation_config.json` recommends.
    """

    directory: Path
    codec: Codec
    config: dict[str, Any]
    sampling: SamplingOptions

    @classmethod
    def open(cls, directory: str | Path | None = None) -> Checkpoint:
        """Open a checkpoint directory; without one, the model that comes with the package.

        Raises:
            CheckpointError: Something is missing, broken, or does not fit together.
            VocabularyError: The vocabulary is missing or broken.
        """
        if directory is not None and not isinstance(directory, (str, PathLike)):
            raise CheckpointError(f"directory is {shown(directory)}; it must be a path")
        directory = Path(directory or default_model_directory())
        if not directory.is_dir():
            raise CheckpointError(
                f"no model directory {str(directory)!r}; give a directory with config.json,"
                " model.safetensors, vocab.txt and emoji.json"
            )
        codec = Codec.load(directory)
        config = read_object(directory / "config.json")
        if config.get("vocab_size") != len(codec.vocabulary):
            raise CheckpointError(
                f"{str(directory)!r}: the model has {config.get('vocab_size')} ids, its vocabulary"
                f" {len(codec.vocabulary)}; put the vocab.txt that it was trained with beside it"
            )
        return cls(directory, codec, config, _recommended_sampling(directory))


def _recommended_sampling(directory: Path) -> SamplingOptions:
    """What `generation_config.json` says of sampling; our own where it is made for greedy."""
    path = directory / "generation_config.json"
    config = read_object(path) if path.is_file() else {}
    if not config.get("do_sample", False):
        return SamplingOptions(**_FALLBACK)
    names = [field.name for field in fields(SamplingOptions)]
    given = {name: config[name] for name in names if config.get(name) is not None}
    try:
        return SamplingOptions(**{**_FALLBACK, **given})
    except GenerationError as error:
        raise CheckpointError(f"{str(path)!r}: {error}") from error
