"""Opening a checkpoint directory: its vocabulary, its model, its recommended sampling."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.inference.sampling import SamplingOptions
from gpt_neox_japanese.tokenizer.codec import Codec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["load_model", "recommended_sampling"]


def load_model(
    directory: str | Path, codec: Codec, *, dtype: torch.dtype, device: str
) -> PreTrainedModel:
    """Read config and weights, and check that they fit the vocabulary.

    Raises:
        CheckpointError: Something is missing, broken, or made for another vocabulary.
    """
    config = read_json(Path(directory) / "config.json")
    vocab_size = config.get("vocab_size")
    if vocab_size != len(codec.vocabulary):
        raise CheckpointError(
            f"{str(directory)!r}: the model has {vocab_size} ids, its vocabulary"
            f" {len(codec.vocabulary)}; put the vocab.txt that it was trained with beside it"
        )
    # transformers takes seconds to import: a wrong path should be told before that.
    from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM

    try:
        model = cast(
            "PreTrainedModel",
            GPTNeoXJapaneseForCausalLM.from_pretrained(
                str(directory), dtype=dtype, local_files_only=True
            ),
        )
    except CheckpointError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"cannot load {str(directory)!r}: {error}") from error
    nn.Module.to(model, device)
    model.train(False)
    return model


def recommended_sampling(directory: str | Path) -> dict[str, Any]:
    """The sampling options that `generation_config.json` recommends; empty where it has none."""
    path = Path(directory) / "generation_config.json"
    config = read_json(path) if path.is_file() else {}
    if not config.get("do_sample", False):
        return {}
    names = [field.name for field in fields(SamplingOptions)]
    return {name: config[name] for name in names if config.get(name) is not None}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: It is missing or something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"cannot read {str(path)!r}: {error.strerror or error}; a model is a directory with"
            " config.json, model.safetensors, vocab.txt and emoji.json"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{str(path)!r} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{str(path)!r} must hold a JSON object")
    return value
