"""Opening a checkpoint directory: its vocabulary, its model, the sampling it recommends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import nn

from gpt_neox_japanese.assets import default_model_directory
from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.inference.sampling import SamplingOptions
from gpt_neox_japanese.tokenizer.codec import Codec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Checkpoint", "open_checkpoint"]

# Sampling where a checkpoint recommends nothing.
_FALLBACK = {"temperature": 0.8, "top_p": 0.95}


class Checkpoint(NamedTuple):
    """What a checkpoint directory holds."""

    codec: Codec
    model: PreTrainedModel
    sampling: SamplingOptions


def open_checkpoint(
    directory: str | Path | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Checkpoint:
    """Open a checkpoint directory; without one, the model that comes with the package.

    Args:
        directory: Holds config.json, model.safetensors, vocab.txt and emoji.json; may hold
            tokenizer_config.json and generation_config.json.
        dtype: What the weights are converted to.
        device: Where the model will run, as torch names it.

    Raises:
        CheckpointError: Something is missing, broken, or does not fit together.
        VocabularyError: The vocabulary is missing or broken.
    """
    directory = Path(directory or default_model_directory())
    if not directory.is_dir():
        raise CheckpointError(
            f"no model directory {str(directory)!r}; give a directory with config.json,"
            " model.safetensors, vocab.txt and emoji.json"
        )
    _check_device(device)
    codec = Codec.load(directory)
    vocab_size = _read_json(directory / "config.json").get("vocab_size")
    if vocab_size != len(codec.vocabulary):
        raise CheckpointError(
            f"{str(directory)!r}: the model has {vocab_size} ids, its vocabulary"
            f" {len(codec.vocabulary)}; put the vocab.txt that it was trained with beside it"
        )
    sampling = SamplingOptions(**{**_FALLBACK, **_recommended_sampling(directory)})
    model = _load_model(directory, dtype)
    nn.Module.to(model, device)
    return Checkpoint(codec, model, sampling)


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"device {device!r} cannot be used here: {reason}") from error


def _load_model(directory: Path, dtype: torch.dtype) -> PreTrainedModel:
    # transformers takes seconds to import: what is wrong with a directory is told before that.
    from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM

    try:
        with _no_progress_bar():
            model = GPTNeoXJapaneseForCausalLM.from_pretrained(
                str(directory), dtype=dtype, local_files_only=True
            )
    except CheckpointError:
        raise
    except Exception as error:  # every kind of broken file has its own
        reason = " ".join(str(error).split())
        raise CheckpointError(f"cannot load {str(directory)!r}: {reason}") from error
    model.train(False)
    return cast("PreTrainedModel", model)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    from transformers.utils import logging

    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _recommended_sampling(directory: Path) -> dict[str, Any]:
    """What `generation_config.json` says of sampling; nothing where it is made for greedy."""
    path = directory / "generation_config.json"
    config = _read_json(path) if path.is_file() else {}
    if not config.get("do_sample", False):
        return {}
    names = [field.name for field in fields(SamplingOptions)]
    return {name: config[name] for name in names if config.get(name) is not None}


def _read_json(path: Path) -> dict[str, Any]:
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
