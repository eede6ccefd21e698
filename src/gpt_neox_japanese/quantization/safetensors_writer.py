"""Writes converted checkpoints: one safetensors file, tensor by tensor, and its description.

No more than one matrix is in memory. The file can be memory-mapped and used as it lies: its tensors
begin at multiples of 64 bytes as long as their sizes are such multiples, and those come first.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.kernels.constants import GROUP
from gpt_neox_japanese.quantization.formats import METHOD, Matrix
from gpt_neox_japanese.quantization.int4 import SCALE
from gpt_neox_japanese.quantization.quantize import quantize

__all__ = ["BitAllocation", "Quantizer", "allocate_bits", "quantization_config", "write_weights"]

_ALIGNMENT = 64
_BYTES = {"F32": 4, "BF16": 2, "I8": 1, "U8": 1}

BitAllocation = dict[str, int]  # name of a tensor → its bits: 4, 8, 16 (bfloat16) or 32
Quantizer = Callable[[str, NDArray[np.float32], int], Matrix]  # name, weight, 4 or 8 bits


@dataclass(frozen=True)
class _TensorLayout:
    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * _BYTES[self.kind]


def allocate_bits(
    tensors: Mapping[str, Tensor], bits: int, lookups: tuple[str, ...] = ()
) -> BitAllocation:
    """Decide in how many bits each tensor is stored.

    Args:
        tensors: A checkpoint's, by name.
        bits: 4, 8 or 16.
        lookups: Ends of the names of embeddings and heads, which get 8 bits where others get 4.

    Returns:
        Bits by name. Matrices get `bits`, or 8 where int4 has no whole groups; vectors 32
        (float32), but 16 (bfloat16) where `bits` is 16.

    Raises:
        CheckpointError: The checkpoint is quantised already.
    """
    allocation: BitAllocation = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{name} is {tensor.dtype}, no floating-point numbers; convert the checkpoint that"
                " this one was made of"
            )
        if bits == 16:
            allocation[name] = 16
        elif tensor.ndim != 2:
            allocation[name] = 32
        elif bits == 4 and (name.endswith(lookups) or tensor.shape[1] % GROUP):
            allocation[name] = 8
        else:
            allocation[name] = bits
    return allocation


def quantization_config(allocation: BitAllocation, bits: int) -> dict[str, Any] | None:
    """Describe an allocation for config.json.

    Args:
        allocation: Of `allocate_bits`.
        bits: 4, 8 or 16, what was asked for.

    Returns:
        The `quantization_config` of config.json; None where nothing is quantised.
    """
    modules = {name.removesuffix(".weight"): n for name, n in sorted(allocation.items()) if n < 16}
    if not modules:
        return None
    return {"quant_method": METHOD, "bits": bits, "group_size": GROUP, "modules": modules}


def write_weights(
    path: Path,
    tensors: Mapping[str, Tensor],
    allocation: BitAllocation,
    *,
    quantizer: Quantizer | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Convert tensors and write them.

    Args:
        path: A safetensors file to make.
        tensors: Floating point, by name.
        allocation: Of `allocate_bits`; the tensors that it names are written.
        quantizer: Quantizes a matrix, and is asked for one after the other, layers in order; None
            is `quantize`.
        progress: Called with the number of bytes written and of all bytes.

    Raises:
        CheckpointError: A tensor holds numbers that are not finite.
        OSError: The disk is full or fails.
    """
    # A matrix and its scales lie together, and what keeps the alignment comes first.
    parts = {
        name: _layouts_of(name, tuple(tensors[name].shape), bits)
        for name, bits in allocation.items()
    }
    order = sorted(
        allocation,
        key=lambda name: (
            any(e.size % _ALIGNMENT for e in parts[name]),
            -allocation[name],
            [(len(part) * part.isdecimal(), part) for part in name.split(".")],  # 9 before 10
        ),
    )
    layouts = [layout for name in order for layout in parts[name]]
    whole = sum(layout.size for layout in layouts)
    written = 0
    quantizer = quantizer or (lambda _name, weight, bits: quantize(weight, bits))
    with path.open("xb") as stream:
        stream.write(_header(layouts))
        for name in order:
            for layout, array in zip(
                parts[name],
                _stored_arrays(name, tensors[name], allocation[name], quantizer),
                strict=True,
            ):
                assert array.nbytes == layout.size, layout
                stream.write(np.ascontiguousarray(array).data)
                written += layout.size
                if progress is not None:
                    progress(written, whole)
        stream.flush()
        os.fsync(stream.fileno())


def _layouts_of(name: str, shape: tuple[int, ...], bits: int) -> list[_TensorLayout]:
    if bits >= 16:
        return [_TensorLayout(name, "F32" if bits == 32 else "BF16", shape)]
    outputs, columns = shape
    if bits == 8:
        return [_TensorLayout(name, "I8", shape), _TensorLayout(name + SCALE, "F32", (outputs,))]
    return [
        _TensorLayout(name, "U8", (outputs, columns // 2)),
        _TensorLayout(name + SCALE, "BF16", (outputs, columns // GROUP)),
    ]


def _header(layouts: list[_TensorLayout]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for layout in layouts:
        end = offset + layout.size
        header[layout.name] = {
            "dtype": layout.kind,
            "shape": list(layout.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _stored_arrays(
    name: str, tensor: Tensor, bits: int, quantizer: Quantizer
) -> Iterator[NDArray[np.generic]]:
    if bits >= 16:
        floats = tensor.to(torch.float32 if bits == 32 else torch.bfloat16).contiguous()
        if not floats.isfinite().all():
            raise CheckpointError(
                f"{name} holds numbers that are not finite in {str(floats.dtype)[6:]}; converted,"
                " the model would write nonsense"
            )
        yield (floats if bits == 32 else floats.view(torch.uint16)).numpy()
    else:
        try:
            matrix = quantizer(name, tensor.float().numpy(), bits)
        except CheckpointError as error:
            raise CheckpointError(f"{name}: {error}") from error
        assert matrix.scales is not None
        yield matrix.numbers
        yield matrix.scales
