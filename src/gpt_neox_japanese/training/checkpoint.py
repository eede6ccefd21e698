"""Writing a model directory that anyone can load, never half of one."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from gpt_neox_japanese.training.prepare import TOKENIZER_FILES

__all__ = ["export", "newest_checkpoint"]


def export(model: PreTrainedModel, tokenizer: Path, output: Path, dtype: torch.dtype) -> None:
    """Write a complete checkpoint into `output`, replacing one that is there.

    Every file is complete before it takes its name, and `config.json`, without which a directory
    is no checkpoint, comes last.

    Args:
        model: the model.
        tokenizer: a directory with the tokenizer's files.
        output: an existing directory.
        dtype: the type the weights are stored in.
    """
    partial = output / f".export-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial, state_dict=_cast(model.state_dict(), dtype))
    config = copy.deepcopy(model.config)
    config.dtype = dtype
    config.use_cache = True  # the trainer turns it off
    config.save_pretrained(partial)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, partial / name)
    for file in sorted(partial.iterdir(), key=lambda file: file.name == "config.json"):
        shutil.copymode(partial / "config.json", file)  # safetensors' own is for the owner only
        file.replace(output / file.name)
    partial.rmdir()


def _cast(weights: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    # Tied weights stay one tensor, or the file would hold them twice.
    done: dict[int, Tensor] = {}
    return {
        name: done.setdefault(weight.data_ptr(), weight.to(dtype))
        for name, weight in weights.items()
    }


def newest_checkpoint(output: Path) -> Path | None:
    """The newest complete resumable state (`checkpoint-<step>`) under a run's directory."""
    # trainer_state.json is what the trainer writes last.
    steps = [
        int(directory.name.removeprefix("checkpoint-"))
        for directory in output.glob("checkpoint-*")
        if (directory / "trainer_state.json").is_file()
    ]
    return output / f"checkpoint-{max(steps)}" if steps else None
