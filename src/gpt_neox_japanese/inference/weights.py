"""The tensors of a checkpoint directory, by name, without running anything that a file contains.

Read are `model.safetensors`, `pytorch_model.bin` (tensors only), and either of them in shards with
an index. The published checkpoint has the second form.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gpt_neox_japanese.errors import CheckpointError

__all__ = ["read_weights"]

_Reader = Callable[[Path], dict[str, Tensor]]


def read_weights(directory: Path) -> dict[str, Tensor]:
    """Read every tensor of a checkpoint.

    Raises:
        CheckpointError: No weights are there, a file is broken, or an index points elsewhere.
    """
    kinds: dict[str, _Reader] = {"model.safetensors": load_file, "pytorch_model.bin": _load_pickle}
    for name, read in kinds.items():
        if (directory / name).is_file():
            return _read(directory / name, read)
        index = directory / f"{name}.index.json"
        if index.is_file():
            weights: dict[str, Tensor] = {}
            for file in _shards(index):
                weights.update(_read(file, read))
            return weights
    raise CheckpointError(
        f"{str(directory)!r} has no weights; put model.safetensors or pytorch_model.bin there"
    )


def _load_pickle(path: Path) -> dict[str, Tensor]:
    # A pickle can hold any code. Only tensors are let through.
    weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise TypeError("it does not hold tensors by name")
    return weights


def _read(path: Path, read: _Reader) -> dict[str, Tensor]:
    try:
        return read(path)
    except (OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"cannot read weights from {str(path)!r}: {reason}") from error
    except Exception as error:  # a broken pickle can fail in any way
        raise CheckpointError(
            f"{str(path)!r} holds more than tensors or is broken, and was not run:"
            f" {' '.join(str(error).split())[:200]}"
        ) from error


def _shards(index: Path) -> Iterator[Path]:
    """The files that an index names, each once; all must lie beside it."""
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{str(index)!r} is not an index of shards: {error}") from error
    for name in sorted(map(str, names)):
        path = index.parent / name
        if Path(name).name != name or not path.is_file():
            raise CheckpointError(
                f"{str(index)!r} names {name!r}, which is no file of its directory"
            )
        yield path
