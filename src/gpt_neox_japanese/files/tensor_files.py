"""The tensors of a checkpoint directory, by name, without running anything that a file contains.

Read are `model.safetensors`, which stays on the disk until its pages are needed,
`pytorch_model.bin` (tensors only), and either of them in shards with an index. The published
checkpoint has the second form.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, TypeVar
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

__all__ = ["SAFETENSORS", "read_pickle", "read_tensors", "read_weights", "weight_files"]

SAFETENSORS = "model.safetensors"
_PICKLE = "pytorch_model.bin"

_Arrays = dict[str, NDArray[Any]]
_Read = TypeVar("_Read")

# What safetensors calls the dtypes that are read, and NumPy; it has no bfloat16.
_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "I8": np.int8,
    "U8": np.uint8,
}

# Tables that old checkpoints store, in any dtype, and that every reader computes.
_COMPUTED = re.compile(r"\.(attention\.bias|attention\.masked_bias|rotary_emb\.inv_freq)$")


def read_weights(directory: Path) -> _Arrays:
    """Read every tensor of a checkpoint but what is computed; bfloat16 as its bits, uint16.

    Args:
        directory: Of a model.

    Returns:
        Tensor by name, in the dtype and shape that it is stored in.

    Raises:
        CheckpointError: No weights are there, a file is broken, or an index points elsewhere.
    """
    form, files = weight_files(directory)
    read = map_safetensors if form == SAFETENSORS else _load_pickle
    weights: _Arrays = {}
    for file in files:
        weights.update(_read(file, read))
    return weights


def weight_files(directory: Path) -> tuple[str, list[Path]]:
    """Find the files of a checkpoint's tensors; they need not be there where an index names them.

    Args:
        directory: Of a model.

    Returns:
        `SAFETENSORS` or the name of the pickle, whether or not it is in shards; and the files.

    Raises:
        CheckpointError: No weights are there, or an index points elsewhere.
    """
    for form in (SAFETENSORS, _PICKLE):
        if os.path.lexists(directory / form):
            return form, [directory / form]
        index = directory / f"{form}.index.json"
        if os.path.lexists(index):
            return form, read_index(index)
    raise CheckpointError(
        f"{str(directory)!r} has no weights; put {SAFETENSORS} or {_PICKLE} there"
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
        Array by name; bfloat16 as its bits, uint16.
    """
    with safe_open(path, framework="numpy") as file:  # checks that the tensors fit the file
        names = [name for name in file.keys() if not _COMPUTED.search(name)]  # noqa: SIM118
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    data = np.memmap(path, mode="c", offset=8 + length) if names else np.empty(0, np.uint8)
    arrays: _Arrays = {}
    for name in names:
        described = header[name]
        if (dtype := _DTYPES.get(described["dtype"])) is None:
            raise _other_dtype(name, described["dtype"])
        begin, end = described["data_offsets"]
        arrays[name] = data[begin:end].view(dtype).reshape(described["shape"])
    return arrays


def read_pickle(path: Path) -> Any:
    """What a file of `torch.save` holds: tensors, numbers and texts, in lists and dictionaries.

    Args:
        path: The file.

    Returns:
        What was saved; the bytes of a tensor stay on the disk until they are used.

    Raises:
        CheckpointError: The file is broken, or holds something else.
    """
    return _read(path, _unpickle)


def _unpickle(path: Path) -> Any:
    import torch

    # A pickle can hold any code. Only data is let through. NumPy's arrays are such, and files of
    # DeepSpeed hold the states of its random numbers in them. Nothing is read before it is used,
    # but in files of before 2020, which cannot be mapped.
    reconstruct: Any = np.empty(0).__reduce__()[0]
    old_name = "numpy.core.multiarray._reconstruct"
    arrays: list[Any] = [np.ndarray, np.dtype, np.dtypes.UInt32DType, reconstruct]
    with torch.serialization.safe_globals([*arrays, (reconstruct, old_name)]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))


def _load_pickle(path: Path) -> _Arrays:
    import torch

    weights = _unpickle(path)
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor)
        for name, tensor in weights.items()
    ):
        raise TypeError("it does not hold tensors by name")
    kinds = {getattr(torch, name) for name in ("float16", "float32", "float64", "int8", "uint8")}
    arrays: _Arrays = {}
    for name, tensor in weights.items():
        tensor = tensor.detach()
        if _COMPUTED.search(name):
            continue
        if tensor.dtype == torch.bfloat16:
            arrays[name] = tensor.view(torch.int16).numpy().view(np.uint16)
        elif tensor.dtype in kinds and tensor.layout is torch.strided and not tensor.is_meta:
            arrays[name] = tensor.numpy()
        else:
            raise _other_dtype(name, f"{tensor.layout} {tensor.dtype} on {tensor.device}")
    return arrays


def _other_dtype(name: str, dtype: str) -> TypeError:
    return TypeError(f"{name[:200]!r} is {dtype}, which no weight of this model is")


def _read(path: Path, read: Callable[[Path], _Read]) -> _Read:
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
