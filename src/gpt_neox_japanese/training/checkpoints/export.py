"""Writing the model directory of a run, which anyone can load, never half of one."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch import Tensor

from gpt_neox_japanese.errors import TrainingError
from gpt_neox_japanese.files.atomic import move_over, sync_file
from gpt_neox_japanese.files.model_directory import TOKENIZER_FILES

__all__ = ["export"]

_CONFIGURATIONS = ("config.json", "adapter_config.json")  # of a model, and of adapters


def export(
    model: Any, weights: Mapping[str, Tensor], tokenizer: Path, output: Path, dtype: torch.dtype
) -> None:
    """Write a complete checkpoint into `output`, replacing one that is there.

    Every file is complete before it takes its name, and the configuration, without which a
    directory is no checkpoint, comes last.

    Args:
        model: A model, or PEFT's around one: then the adapters are written.
        weights: Trained parameter → its whole tensor, float32.
        tokenizer: A directory with the tokenizer's files.
        output: Made if need be.
        dtype: The type the weights are stored in.

    Raises:
        TrainingError: The disk is full, or fails otherwise; the old checkpoint is there.
    """
    output.mkdir(parents=True, exist_ok=True)
    for leftover in output.glob(".export-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = Path(mkdtemp(prefix=".export-", dir=output))
    try:
        _write(model, weights, tokenizer, partial, dtype)
        files = sorted(partial.iterdir(), key=lambda file: file.name in _CONFIGURATIONS)
        for file in files:
            sync_file(file)
        mode = (partial / TOKENIZER_FILES[0]).stat().st_mode
        for file in files:
            file.chmod(mode)  # safetensors' own is for the owner only
            move_over(file, output / file.name)
    except (OSError, RuntimeError) as error:
        raise TrainingError(
            f"the model cannot be written to {output}: {error}; the run's checkpoint is saved: "
            "make room and continue with --resume"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(
    model: Any, weights: Mapping[str, Tensor], tokenizer: Path, partial: Path, dtype: torch.dtype
) -> None:
    cast = {name: weight.to(dtype) for name, weight in weights.items()}
    if hasattr(model, "peft_config"):
        # PEFT would ask the Hub whether the vocabulary of the model beside them has grown.
        model.save_pretrained(partial, state_dict=cast, save_embedding_layers=False)
        (partial / "README.md").unlink(missing_ok=True)  # a form that nobody has filled in
    else:
        model.save_pretrained(partial, state_dict=cast)
        config = copy.deepcopy(model.config)
        config.dtype = dtype
        config.use_cache = True  # turned off while training
        config.save_pretrained(partial)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, partial / name)
