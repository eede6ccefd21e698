"""Writes converted checkpoints: one safetensors file, tensor by tensor, and its description.

No more than one matrix is in memory. The file can be mapped and used as it lies: its tensors begin
at multiples of 64 bytes as long as their sizes are such multiples, and those come first.
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
from gpt_neox_japanese.quantization.formats import METHOD
from gpt_neox_japanese.quantization.int4 import SCALE
from gpt_neox_japanese.quantization.quantize import quantize

__all__ = ["Plan", "description", "plan_of", "write_weights"]

_ALIGNMENT = 64
_BYTES = {"F32": 4, "BF16": 2, "I8": 1, "U8": 1}

Plan = dict[str, int]  # name of a tensor → its bits: 4, 8, 16 (bfloat16) or 32


@dataclass(frozen=True)
class _Entry:
    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * _BYTES[self.kind]


def plan_of(tensors: Mapping[str, Tensor], bits: int, lookups: tuple[str, ...] = ()) -> Plan:
    """Decide the bits of each tensor.

    Args:
        tensors: A checkpoint's, by name.
        bits: 4, 8 or 16.
        lookups: Ends of the names of embeddings and heads, which get 8 bits where others get 4.

    Returns:
        Matrices get `bits`, or 8 where int4 has no whole groups; vectors float32, but bfloat16
        with 16 bits.

    Raises:
        CheckpointError: The checkpoint is quantised already.
    """
    plan: Plan = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{name} is {tensor.dtype}, no floating-point numbers; convert the checkpoint that"
                " this one was made of"
            )
        if bits == 16:
            plan[name] = 16
        elif tensor.ndim != 2:
            plan[name] = 32
        elif bits == 4 and (name.endswith(lookups) or tensor.shape[1] % GROUP):
            plan[name] = 8
        else:
            plan[name] = bits
    return plan


def description(plan: Plan, bits: int) -> dict[str, Any] | None:
    """`quantization_config` of config.json; None where nothing is quantised."""
    modules = {name.removesuffix(".weight"): n for name, n in sorted(plan.items()) if n < 16}
    if not modules:
        return None
    return {"quant_method": METHOD, "bits": bits, "group_size": GROUP, "modules": modules}


def write_weights(
    path: Path,
    tensors: Mapping[str, Tensor],
    plan: Plan,
    *,
    search: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Convert tensors and write them.

    Args:
        path: A safetensors file to make.
        tensors: Floating point, by name.
        plan: Of `plan_of`; the tensors that it names are written.
        search: See `quantize`.
        progress: Called with the number of bytes written and of all bytes.

    Raises:
        CheckpointError: A tensor holds numbers that are not finite.
    """
    # What a tensor becomes lies together, and what keeps the alignment comes first.
    parts = {name: _entries(name, tuple(tensors[name].shape), bits) for name, bits in plan.items()}
    order = sorted(
        plan, key=lambda name: (any(e.size % _ALIGNMENT for e in parts[name]), -plan[name], name)
    )
    entries = [entry for name in order for entry in parts[name]]
    whole = sum(entry.size for entry in entries)
    written = 0
    with path.open("xb") as stream:
        stream.write(_header(entries))
        for name in order:
            for entry, array in zip(
                parts[name], _converted(name, tensors[name], plan[name], search), strict=True
            ):
                assert array.nbytes == entry.size, entry
                stream.write(np.ascontiguousarray(array).data)
                written += entry.size
                if progress is not None:
                    progress(written, whole)
        stream.flush()
        os.fsync(stream.fileno())


def _entries(name: str, shape: tuple[int, ...], bits: int) -> list[_Entry]:
    if bits >= 16:
        return [_Entry(name, "F32" if bits == 32 else "BF16", shape)]
    outputs, columns = shape
    if bits == 8:
        return [_Entry(name, "I8", shape), _Entry(name + SCALE, "F32", (outputs,))]
    return [
        _Entry(name, "U8", (outputs, columns // 2)),
        _Entry(name + SCALE, "BF16", (outputs, columns // GROUP)),
    ]


def _header(entries: list[_Entry]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in entries:
        end = offset + entry.size
        header[entry.name] = {
            "dtype": entry.kind,
            "shape": list(entry.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _converted(name: str, tensor: Tensor, bits: int, search: bool) -> Iterator[NDArray[np.generic]]:
    if bits == 32:
        yield tensor.float().numpy()
    elif bits == 16:
        yield tensor.to(torch.bfloat16).contiguous().view(torch.uint16).numpy()
    else:
        try:
            matrix = quantize(tensor.float().numpy(), bits, search=search)
        except CheckpointError as error:
            raise CheckpointError(f"{name}: {error}") from error
        assert matrix.scales is not None
        yield matrix.numbers
        yield matrix.scales
