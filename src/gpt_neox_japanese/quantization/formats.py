"""Weights of one matrix in each of the formats, as they lie in a checkpoint.

A matrix `NAME.weight` of `outputs × columns` is stored as

    ========  =====================================  ===================================
    format    NAME.weight                            NAME.weight_scale
    ========  =====================================  ===================================
    float32   F32 `[outputs, columns]`
    bfloat16  BF16 `[outputs, columns]`
    int8      I8 `[outputs, columns]`, -127 to 127   F32 `[outputs]`
    int4      U8 `[outputs, columns / 2]`            BF16 `[outputs, columns / 64]`
    ========  =====================================  ===================================

A weight is its integer times its scale. `reference.pack_int4` tells the order of nibbles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.quantization.reference import GROUP, SCALE, bfloat_to_float, unpack_int4

__all__ = [
    "METHOD",
    "SCALE",
    "BfloatWeight",
    "FloatWeight",
    "Int4Weight",
    "Int8Weight",
    "Weight",
    "weight_of",
]

METHOD = "neox_ja"  # `quant_method` of config.json


@dataclass(frozen=True)
class FloatWeight:
    """`values`: float32 `(outputs, columns)`."""

    values: NDArray[np.float32]
    format: ClassVar[str] = "float32"

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and columns."""
        outputs, columns = self.values.shape
        return outputs, columns

    @property
    def nbytes(self) -> int:
        """Bytes that a product reads."""
        return self.values.nbytes

    def dequantize(self, first: int = 0, last: int | None = None) -> NDArray[np.float32]:
        """float32 `(last - first, columns)`."""
        return self.values[first:last]


@dataclass(frozen=True)
class BfloatWeight:
    """`bits`: bit patterns of bfloat16, uint16 `(outputs, columns)`."""

    bits: NDArray[np.uint16]
    format: ClassVar[str] = "bfloat16"

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and columns."""
        outputs, columns = self.bits.shape
        return outputs, columns

    @property
    def nbytes(self) -> int:
        """Bytes that a product reads."""
        return self.bits.nbytes

    def dequantize(self, first: int = 0, last: int | None = None) -> NDArray[np.float32]:
        """float32 `(last - first, columns)`."""
        return bfloat_to_float(self.bits[first:last])


@dataclass(frozen=True)
class Int8Weight:
    """`values`: int8 `(outputs, columns)`; `scales`: float32 `(outputs,)`."""

    values: NDArray[np.int8]
    scales: NDArray[np.float32]
    format: ClassVar[str] = "int8"

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and columns."""
        outputs, columns = self.values.shape
        return outputs, columns

    @property
    def nbytes(self) -> int:
        """Bytes that a product reads."""
        return self.values.nbytes + self.scales.nbytes

    def dequantize(self, first: int = 0, last: int | None = None) -> NDArray[np.float32]:
        """float32 `(last - first, columns)`."""
        return self.values[first:last] * self.scales[first:last, None]


@dataclass(frozen=True)
class Int4Weight:
    """`packed`: uint8 `(outputs, columns / 2)`; `scales`: uint16 `(outputs, columns / GROUP)`.

    The scales are bit patterns of bfloat16.
    """

    packed: NDArray[np.uint8]
    scales: NDArray[np.uint16]
    format: ClassVar[str] = "int4"

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and columns."""
        outputs, half = self.packed.shape
        return outputs, 2 * half

    @property
    def nbytes(self) -> int:
        """Bytes that a product reads."""
        return self.packed.nbytes + self.scales.nbytes

    def dequantize(self, first: int = 0, last: int | None = None) -> NDArray[np.float32]:
        """float32 `(last - first, columns)`."""
        scales = np.repeat(bfloat_to_float(self.scales[first:last]), GROUP, axis=1)
        return unpack_int4(self.packed[first:last]) * scales


Weight: TypeAlias = FloatWeight | BfloatWeight | Int8Weight | Int4Weight


def weight_of(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, int]) -> Weight:
    """A matrix of a checkpoint in the format in which it is stored, without a copy.

    float16 is the exception: it becomes float32.

    Args:
        tensors: The checkpoint's, by name.
        name: Such as `embed_out.weight`.
        shape: Outputs and columns that it must have.

    Raises:
        CheckpointError: It is missing, or its type, shape or scales fit no format.
    """
    outputs, columns = shape
    tensor = tensors.get(name)
    if tensor is None:
        raise CheckpointError(f"the weights have no {name}; {list(shape)} is expected")
    if tensor.dtype == torch.int8:
        _demand(tensor, name, shape, torch.int8)
        scales = _demand(tensors.get(name + SCALE), name + SCALE, (outputs,), torch.float32)
        return Int8Weight(_array(tensor), _array(scales))
    if tensor.dtype == torch.uint8:
        if columns % GROUP:
            raise CheckpointError(
                f"{name} is int4, but {columns} columns are no multiple of {GROUP}; convert the"
                " checkpoint again"
            )
        _demand(tensor, name, (outputs, columns // 2), torch.uint8)
        groups = (outputs, columns // GROUP)
        scales = _demand(tensors.get(name + SCALE), name + SCALE, groups, torch.bfloat16)
        return Int4Weight(_array(tensor), _array(scales.view(torch.uint16)))
    if tensor.dtype == torch.bfloat16:
        return BfloatWeight(_array(_demand(tensor, name, shape, tensor.dtype).view(torch.uint16)))
    if tensor.dtype in (torch.float32, torch.float16):
        return FloatWeight(_array(_demand(tensor, name, shape, tensor.dtype).float()))
    raise CheckpointError(
        f"{name} is {tensor.dtype}; float32, float16, bfloat16, int8 and uint8 (int4) are known"
    )


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().contiguous().numpy()


def _demand(tensor: Tensor | None, name: str, shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
    if tensor is None or tensor.dtype != kind or tuple(tensor.shape) != shape:
        found = "is missing" if tensor is None else f"is {tensor.dtype} {list(tensor.shape)}"
        raise CheckpointError(
            f"the weights do not fit: {name} {found}, {kind} {list(shape)} is expected;"
            " convert the checkpoint again"
        )
    return tensor
