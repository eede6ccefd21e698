"""One model out of several: the mean of checkpoints, or a model with adapters added to it.

The mean of a run's last checkpoints, or of two runs from one start, often predicts better than any
of them: https://arxiv.org/abs/1803.05407 and https://arxiv.org/abs/2203.05482.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt_neox_japanese.checks import one_line, short_repr
from gpt_neox_japanese.errors import ArgumentError, CheckpointError, NeoXJapaneseError
from gpt_neox_japanese.files import outputs
from gpt_neox_japanese.files.json_files import read_object
from gpt_neox_japanese.files.model_config import (
    read_config,
    read_generation_config,
    rotary_parameters,
    sizes,
)
from gpt_neox_japanese.files.model_directory import TOKENIZER_FILES, find_model
from gpt_neox_japanese.files.tensor_files import read_tensors, read_weights
from gpt_neox_japanese.quantization.checkpoint_tensors import check_tensors, check_writable
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.tokenizer.model_check import check_model
from gpt_neox_japanese.training.checkpoints.export import export
from gpt_neox_japanese.training.model_setup import merged_model

__all__ = ["average_models", "merge_adapter"]


def average_models(
    models: Sequence[Path], output: Path, shares: Sequence[float] | None = None
) -> int:
    """Write the mean of models of one shape and vocabulary.

    What is not a weight, such as generation_config.json, is the first model's, and so is the dtype
    that each weight is stored in. The mean is taken in float64, a tensor at a time.

    Args:
        models: Directories, two or more.
        output: Directory to make.
        shares: How much each counts; they are divided by their sum. None for all alike.

    Returns:
        Parameters of the model.

    Raises:
        ArgumentError: There are not as many shares as models, or one of them is negative.
        CheckpointError: The models differ in more than their weights, or one is broken, its numbers
            among them.
        VocabularyError: A vocabulary is.
        OutputError: The output exists or cannot be written.
        OSError: The disk is full or fails.
    """
    counts = _normalized(shares, len(models))
    first = models[0]
    partial = outputs.partial_directory(output, "averaged")
    outputs.check_output(output, partial=partial)
    tensors = [_tensors_of(model, first) for model in models]
    _check_alike(tensors, models)
    with outputs.growing(partial, output, "config.json"):
        mean = {name: _mean([each[name] for each in tensors], counts) for name in tensors[0]}
        _check_finite(mean, torch.float64, output)
        _copy_rest(first, partial)
        _save_weights(mean, partial / "model.safetensors")
    return sum(tensor.numel() for tensor in mean.values())


def merge_adapter(adapter: Path, output: Path, base: str | None, dtype: torch.dtype) -> int:
    """Write a model with adapters added to its weights.

    Args:
        adapter: A directory that `neox-ja train --lora-rank` or PEFT made.
        output: Directory to make.
        base: The model that was adapted, a directory or a Hub id; None for the one that the adapter
            names.
        dtype: What weights are stored in.

    Returns:
        Parameters of the model.

    Raises:
        CheckpointError: One of them is missing or broken, or they do not belong together.
        VocabularyError: There is no vocabulary, or it is broken.
        ArgumentError: PEFT is not installed.
        OutputError: The output exists or cannot be written.
        TrainingError: The disk is full or fails.
    """
    path = adapter / "adapter_config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{str(adapter)!r} has no adapter_config.json; name the directory that --lora-rank made"
        )
    named = read_object(path).get("base_model_name_or_path") if base is None else base
    if not isinstance(named, str) or not named:
        raise CheckpointError(
            f"{str(path)!r}: base_model_name_or_path is {short_repr(named)}; name the model that"
            " was adapted with --base"
        )
    partial = outputs.partial_directory(output, "merged")
    outputs.check_output(output, partial=partial)
    directory = find_model(named)
    read_config(directory)
    try:
        model = merged_model(directory, adapter)
    except (NeoXJapaneseError, OSError, ImportError, MemoryError):
        raise  # it says what is wrong, or no file is to blame
    except Exception as error:  # PEFT's, of files that it cannot read or that do not fit
        raise CheckpointError(
            f"{str(adapter)!r} cannot be added to {named!r}: {one_line(error)}; name the model that"
            " was adapted with --base"
        ) from error
    tokenizer = adapter if (adapter / TOKENIZER_FILES[0]).is_file() else directory
    check_model(Codec.load(tokenizer), model.config.to_dict(), tokenizer)
    with outputs.growing(partial, output, "config.json"):
        weights = dict(model.named_parameters())
        _check_finite(weights, dtype, output)
        export(model, weights, tokenizer, partial, dtype)
    return sum(weight.numel() for weight in weights.values())


def _normalized(shares: Sequence[float] | None, count: int) -> list[float]:
    if count < 2:
        raise ArgumentError("a mean is of two models or more; name another one")
    shares = [1.0] * count if shares is None else shares
    if len(shares) != count:
        raise ArgumentError(f"{len(shares)} shares are given for {count} models; give as many")
    if not all(math.isfinite(share) and share >= 0 for share in shares) or not any(shares):
        raise ArgumentError(
            f"the shares are {short_repr(list(shares))}; they must be numbers from 0, not all 0"
        )
    largest = max(shares)  # the sum of large ones would be infinite
    total = sum(share / largest for share in shares)
    return [share / largest / total for share in shares]


def _tensors_of(model: Path, first: Path) -> dict[str, Tensor]:
    """The tensors of a model that has the first one's shape and vocabulary."""
    config, expected = read_config(model), read_config(first)
    if config.get("quantization_config"):
        raise CheckpointError(
            f"{str(model)!r} is quantised, and a mean of rounded weights would be rounded again;"
            " average the checkpoints that it was made of, or what `neox-ja convert --to bf16`"
            " makes of it"
        )
    if sizes(config) != sizes(expected):
        raise CheckpointError(f"{str(model)!r} has another shape than {str(first)!r}")
    others = _arithmetic(expected)
    for name, value in _arithmetic(config).items():
        if value != (other := others[name]):
            raise CheckpointError(
                f"{str(model)!r} has {name} {short_repr(value)}, {str(first)!r} has"
                f" {short_repr(other)}; a mean is of models that compute alike"
            )
    codec = Codec.load(model)
    if codec.fingerprint != Codec.load(first).fingerprint:
        raise CheckpointError(f"{str(model)!r} has another vocabulary than {str(first)!r}")
    check_model(codec, config, model)
    read_generation_config(model)
    check_tensors(config, read_weights(model), str(model))
    tensors = read_tensors(model)
    check_writable(tensors, model)
    return tensors


def _arithmetic(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides, besides the sizes, which numbers come of the weights."""
    rope = rotary_parameters(config, "")
    rope.pop("type", None)  # an old name of rope_type
    return {
        "hidden_act": config.get("hidden_act", "gelu"),
        "layer_norm_eps": config.get("layer_norm_eps", 1e-5),
        "tie_word_embeddings": config.get("tie_word_embeddings", True),
        "rope_parameters": rope,
    }


def _check_alike(tensors: Sequence[Mapping[str, Tensor]], models: Sequence[Path]) -> None:
    for model, each in zip(models[1:], tensors[1:], strict=True):
        for name in sorted(tensors[0].keys() ^ each.keys()):
            raise CheckpointError(f"only one of {str(models[0])!r} and {str(model)!r} has {name}")
        for name, tensor in each.items():
            expected = tensors[0][name]
            if tensor.shape != expected.shape or not tensor.is_floating_point():
                raise CheckpointError(
                    f"{str(model)!r}: {name} is {tensor.dtype} {list(tensor.shape)}, in"
                    f" {str(models[0])!r} {expected.dtype} {list(expected.shape)}"
                )


def _mean(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    total = torch.zeros(tensors[0].shape, dtype=torch.float64)
    for tensor, share in zip(tensors, shares, strict=True):
        total += share * tensor.double()
    return total.to(tensors[0].dtype)


def _check_finite(weights: Mapping[str, Tensor], dtype: torch.dtype, output: Path) -> None:
    """Refuse what no model computes with."""
    for name, weight in weights.items():
        if not weight.to(dtype).isfinite().all():
            raise CheckpointError(
                f"{str(output)!r} would have numbers in {name} that are not finite, so it is not"
                " written; one of the models is broken, or the dtype too narrow for it"
            )


def _save_weights(tensors: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path, metadata={"format": "pt"})


def _copy_rest(source: Path, directory: Path) -> None:
    """Configuration and tokenizer."""
    for name in ("config.json", "generation_config.json", *TOKENIZER_FILES):
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)
