"""The formats: how the weights of a matrix are stored in a checkpoint.

A matrix `NAME.weight`, [outputs, columns], is stored as

    ========  =====================================  ===================================
    format    NAME.weight                            NAME.weight_scale
    ========  =====================================  ===================================
    float32   F32 `[outputs, columns]`
    bfloat16  BF16 `[outputs, columns]`
    int8      I8 `[outputs, columns]`, -127 to 127   F32 `[outputs]`
    int4      U8 `[outputs, columns / 2]`            BF16 `[outputs, columns / 64]`
    ========  =====================================  ===================================

A weight is its integer times its scale. `int4.pack_int4` tells the order of nibbles. In NumPy,
which has no bfloat16, BF16 is the uint16 of its bits, and so each format has a dtype of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.kernels.constants import GROUP
from gpt_neox_japanese.quantization.bfloat16_arrays import float32_array
from gpt_neox_japanese.quantization.int4 import SCALE, unpack_int4

__all__ = ["METHOD", "Matrix", "check_tensor", "find_matrix", "find_tensor", "stored_matrix"]

METHOD = "neox_ja"  # `quant_method` of config.json

_FORMATS = {"float32": "float32", "uint16": "bfloat16", "int8": "int8", "uint8": "int4"}
_FLOATS = (np.float32, np.uint16, np.float16, np.float64)


class Matrix(NamedTuple):
    """A matrix as it is stored; the dtype of its numbers tells how.

    Attributes:
        numbers: float32 or bfloat16 as uint16, [outputs, columns]; int8 of that shape; or int4,
            two to a byte, uint8 [outputs, columns / 2].
        scales: None for floats; float32 [outputs] for int8; bfloat16 as uint16
            [outputs, columns / GROUP] for int4.
    """

    numbers: NDArray[Any]
    scales: NDArray[Any] | None = None

    @property
    def format(self) -> str:
        """Its name in the table above."""
        return _FORMATS[self.numbers.dtype.name]

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and columns."""
        outputs, columns = self.numbers.shape
        return outputs, columns * (2 if self.numbers.dtype == np.uint8 else 1)

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers and scales: what a product reads."""
        return self.numbers.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def floats(self, rows: slice | NDArray[np.intp] = slice(None)) -> NDArray[np.float32]:
        """Dequantize.

        Args:
            rows: Which rows, a slice or integers [rows]; all of them if left out.

        Returns:
            float32 [rows, columns].
        """
        numbers = self.numbers[rows]
        if self.scales is None:
            return float32_array(numbers)
        scales = float32_array(self.scales[rows])
        if numbers.dtype == np.uint8:
            numbers, scales = unpack_int4(numbers), np.repeat(scales, GROUP, axis=1)
        else:
            scales = scales[:, None]
        floats: NDArray[np.float32] = numbers * scales
        return floats


def find_matrix(tensors: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, int]) -> Matrix:
    """Find a matrix of a checkpoint, in the format in which it is stored, without a copy.

    float16 and float64 are the exceptions: they become float32. So is what does not lie in memory
    as a kernel needs it.

    Args:
        tensors: The checkpoint's, by name; bfloat16 as uint16.
        name: Such as `embed_out.weight`.
        shape: Outputs and columns that it must have.

    Returns:
        The matrix.

    Raises:
        CheckpointError: It is missing, or its type, shape or scales fit no format.
    """
    numbers, scales = stored_matrix(tensors, name, shape)
    if numbers.dtype in (np.float16, np.float64):
        return Matrix(float32_array(numbers))
    return Matrix(_in_order(numbers), None if scales is None else _in_order(scales))


def stored_matrix(tensors: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, int]) -> Matrix:
    """`find_matrix` without any conversion: nothing of the matrix is read.

    Args:
        tensors: As of `find_matrix`.
        name: As of `find_matrix`.
        shape: As of `find_matrix`.

    Returns:
        The matrix; its numbers may be float16 or float64 too, and have any strides.

    Raises:
        CheckpointError: It is missing, or its type, shape or scales fit no format.
    """
    outputs, columns = shape
    kind = tensors[name].dtype if name in tensors else None
    if kind == np.int8:
        numbers = check_tensor(tensors, name, shape, np.int8)
        return Matrix(numbers, check_tensor(tensors, name + SCALE, (outputs,), np.float32))
    if kind == np.uint8:
        if columns % GROUP:
            raise CheckpointError(
                f"{name} is int4, but {columns} columns are no multiple of {GROUP}; convert the"
                " checkpoint again"
            )
        numbers = check_tensor(tensors, name, (outputs, columns // 2), np.uint8)
        groups = (outputs, columns // GROUP)
        return Matrix(numbers, check_tensor(tensors, name + SCALE, groups, np.uint16))
    if name + SCALE in tensors:
        raise CheckpointError(
            f"{name}{SCALE} stands beside {name}, whose numbers are floats; remove one of the two,"
            " or convert the checkpoint again"
        )
    return Matrix(check_tensor(tensors, name, shape))


def find_tensor(
    tensors: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...]
) -> NDArray[Any]:
    """Find a tensor of floats of a checkpoint, in memory as a kernel needs it.

    Args:
        tensors: The checkpoint's, by name; bfloat16 as uint16.
        name: Such as `final_layer_norm.weight`.
        shape: What it must have.

    Returns:
        The tensor, without a copy if possible.

    Raises:
        CheckpointError: It is missing or has another shape or dtype.
    """
    return _in_order(check_tensor(tensors, name, shape))


def check_tensor(
    tensors: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...], *kinds: DTypeLike
) -> NDArray[Any]:
    """Find a tensor of a checkpoint, as it is stored.

    Args:
        tensors: The checkpoint's, by name; bfloat16 as uint16.
        name: Such as `final_layer_norm.weight`.
        shape: What it must have.
        *kinds: Dtypes of which it must have one; any float if there are none.

    Returns:
        The tensor.

    Raises:
        CheckpointError: It is missing or has another shape or dtype.
    """
    found = tensors.get(name)
    kinds = kinds or _FLOATS
    if found is None or found.shape != shape or found.dtype not in kinds:
        what = "is missing" if found is None else f"has shape {found.shape} of {found.dtype}"
        wanted = "floats" if len(kinds) > 1 else np.dtype(kinds[0]).name
        raise CheckpointError(
            f"the weights do not fit config.json: {name} {what}, {shape} of {wanted} is expected;"
            " copy or convert the checkpoint again"
        )
    return found


def _in_order(array: NDArray[Any]) -> NDArray[Any]:
    """The array itself where its numbers follow each other and are aligned."""
    return np.require(array, requirements=["C", "ALIGNED"])
