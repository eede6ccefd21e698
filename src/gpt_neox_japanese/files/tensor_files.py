"""The tensors of a checkpoint directory, by name, without running anything that a file contains.

Read are `model.safetensors`, which stays on the disk until its pages are needed,
`pytorch_model.bin` (tensors only), and either of them in shards with an index. The published
checkpoint has the second form.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from gpt_neox_japanese.checks import one_line
from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.files.json_files import read_index
from gpt_neox_japanese.files.regular_files import check_regular

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["read_tensors", "read_weights"]

_Arrays = dict[str, NDArray[Any]]
_Reader = Callable[[Path], _Arrays]

# What safetensors calls the dtypes that are read, and NumPy; it has no bfloat16.
_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "I8": np.int8,
    "U8": np.uint8,
}


def read_weights(directory: Path) -> _Arrays:
    """Read every tensor of a checkpoint; bfloat16 as its bits, uint16.

    Args:
        directory: Of a model.

    Returns:
        Tensor by name, in the dtype and shape that it is stored in.

    Raises:
        CheckpointError: No weights are there, a file is broken, or an index points elsewhere.
    """
    kinds: dict[str, _Reader] = {
        "model.safetensors": map_safetensors,
        "pytorch_model.bin": _load_pickle,
    }
    for name, read in kinds.items():
        if os.path.lexists(directory / name):
            return _read(directory / name, read)
        index = directory / f"{name}.index.json"
        if os.path.lexists(index):
            weights: _Arrays = {}
            for file in read_index(index):
                weights.update(_read(file, read))
            return weights
    raise CheckpointError(
        f"{str(directory)!r} has no weights; put model.safetensors or pytorch_model.bin there"
    )


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """`read_weights` as torch's tensors, which must not be changed.

    Args:
        directory: Of a model.

    Returns:
        Tensor by name, in the dtype and shape that it is stored in.

    Raises:
        CheckpointError: No weights are there, a file is broken, or an index points elsewhere.
    """
    import torch

    arrays = read_weights(directory)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {
        name: tensor.view(torch.bfloat16) if tensor.dtype == torch.uint16 else tensor
        for name, tensor in tensors.items()
    }


def map_safetensors(path: Path) -> _Arrays:
    """Map a file into memory: nothing is read before it is used, and nothing written back.

    Args:
        path: Of the file.

    Returns:
        Array by name; bfloat16 as its bits, uint16. Tensors of other dtypes are left out.
    """
    with safe_open(path, framework="numpy") as file:  # checks that the tensors fit the file
        names = file.keys()
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    data = np.memmap(path, mode="c", offset=8 + length) if names else np.empty(0, np.uint8)
    arrays: _Arrays = {}
    for name in names:
        described = header[name]
        # The attention masks of old checkpoints are of other dtypes, and not needed.
        if (dtype := _DTYPES.get(described["dtype"])) is not None:
            begin, end = described["data_offsets"]
            arrays[name] = data[begin:end].view(dtype).reshape(described["shape"])
    return arrays


def _load_pickle(path: Path) -> _Arrays:
    import torch

    # A pickle can hold any code. Only tensors are let through, and nothing is read before it is
    # used, but in files of before 2020, which cannot be mapped.
    weights = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor)
        for name, tensor in weights.items()
    ):
        raise TypeError("it does not hold tensors by name")
    kinds = {getattr(torch, name) for name in ("float16", "float32", "float64", "int8", "uint8")}
    arrays: _Arrays = {}
    for name, tensor in weights.items():
        tensor = tensor.detach()
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.view(torch.int16)
            arrays[name] = tensor.numpy().view(np.uint16)
        elif tensor.dtype in kinds and tensor.layout is torch.strided and not tensor.is_meta:
            arrays[name] = tensor.numpy()
    return arrays


def _read(path: Path, read: _Reader) -> _Arrays:
    check_regular(path)
    try:
        return read(path)
    except SafetensorError as error:
        raise CheckpointError(
            f"{str(path)!r}: the .safetensors file is broken ({one_line(error)}); copy or download"
            " it again"
        ) from error
    except UnpicklingError as error:
        raise CheckpointError(
            f"{str(path)!r} holds something else than tensors, and is not loaded because it could"
            " run any program; ask its maker for model.safetensors"
        ) from error
    except Exception as error:  # a broken pickle can fail in any way
        raise CheckpointError(
            f"cannot read weights from {str(path)!r}: {one_line(error)}; copy or download it again"
        ) from error
