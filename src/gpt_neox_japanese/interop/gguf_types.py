"""The types of numbers that a GGUF file holds, and who makes them.

The package `gguf` writes floats and the older quantised types; the others are made by llama.cpp's
own quantiser, where the package `xllamacpp` brings it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import ArgumentError, CheckpointError

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

__all__ = ["TYPES", "GGUFType", "import_gguf"]

_FLOATS = ("f32", "f16", "bf16")
_BY_LIBRARY = ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
_BY_LLAMA_CPP = ("q6_k", "q5_k", "q4_k", "q3_k", "q2_k", "iq4_nl", "iq4_xs")

TYPES = (*_FLOATS, *_BY_LIBRARY, *_BY_LLAMA_CPP)
"""Names as llama.cpp has them."""

# The largest numbers; of f16 are also the scales of quantised blocks.
_LARGEST = {"F32": float("inf"), "BF16": 2.0**128 - 2.0**120}
_LARGEST_F16 = 65504.0

_OF_DTYPES = {"uint16": "bf16", "float16": "f16"}  # NumPy has no bfloat16: its bits are uint16


def import_gguf() -> ModuleType:
    """The package `gguf`.

    Returns:
        The module.

    Raises:
        ArgumentError: It is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise ArgumentError(
            "GGUF files are read and written by the package gguf: "
            "pip install 'gpt-neox-japanese[gguf]'"
        ) from error
    return gguf


class GGUFType:
    """How matrices are stored.

    Embedding and head have 8 bits at least, as in `neox-ja convert --to int4`: each of their rows
    is one token's. Matrices whose rows have no whole blocks are stored in 16 bits; a model that has
    no others is refused.

    Args:
        name: One of `TYPES`.

    Raises:
        ArgumentError: There is no such type, or nobody here who makes it.
    """

    def __init__(self, name: str) -> None:
        if name not in TYPES:
            raise ArgumentError(f"type {name!r:.40} is none of {', '.join(TYPES)}")
        self._gguf = import_gguf()
        self.name = name
        self._llama_cpp = _load_llama_cpp(name) if name in _BY_LLAMA_CPP else None

    @classmethod
    def of_weights(cls, tensors: dict[str, NDArray[Any]]) -> GGUFType:
        """The type that holds the numbers of all matrices as they are.

        Args:
            tensors: By name.

        Returns:
            Theirs if they have one, else float32.
        """
        names = {_OF_DTYPES.get(t.dtype.name, "f32") for t in tensors.values() if t.ndim == 2}
        return cls(names.pop() if len(names) == 1 else "f32")

    @property
    def is_quantized(self) -> bool:
        """Whether numbers are stored in fewer than 16 bits."""
        return self.name not in _FLOATS

    def check_columns(self, columns: Collection[int]) -> None:
        """Refuse a model of which no matrix would be stored so.

        Args:
            columns: Of each of its matrices.

        Raises:
            ArgumentError: None has rows of whole blocks.
        """
        fitting = [name for name in TYPES if not all(n % self._block(name) for n in columns)]
        if self.name not in fitting:
            raise ArgumentError(
                f"type {self.name!r} has blocks of {self._block(self.name)} numbers, and no matrix"
                f" of this model has rows of whole blocks; choose one of {', '.join(fitting)}"
            )

    def of_matrix(self, columns: int, *, table: bool = False) -> GGMLQuantizationType:
        """How a matrix is stored.

        Args:
            columns: Of the matrix.
            table: Whether it is the embedding or the head.

        Returns:
            The type of the library.
        """
        types = self._gguf.GGMLQuantizationType
        name = "q8_0" if table and self.name not in _FLOATS else self.name
        found: GGMLQuantizationType = (
            types.F16 if columns % self._block(name) else types[name.upper()]
        )
        return found

    def shape(self, rows: int, columns: int, kind: GGMLQuantizationType) -> tuple[int, int]:
        """Rows, and bytes of a row."""
        block, size = self._gguf.GGML_QUANT_SIZES[kind]
        return rows, columns // block * size

    def quantize(
        self, name: str, matrix: NDArray[np.float32], kind: GGMLQuantizationType
    ) -> NDArray[np.uint8]:
        """The bytes that stand in the file.

        Args:
            name: Of the tensor, for messages.
            matrix: float32 [rows, columns], all numbers finite.
            kind: What `of_matrix` gave.

        Returns:
            uint8 [rows, bytes of a row].

        Raises:
            CheckpointError: A number is too large for the type.
        """
        matrix = np.ascontiguousarray(matrix, dtype=np.float32)
        limit = _LARGEST.get(kind.name, _LARGEST_F16)
        if (largest := np.abs(matrix).max()) > limit:
            raise CheckpointError(
                f"{name} holds {largest:g}, and {limit:g} is the largest number of"
                f" {kind.name.lower()}; choose " + "bf16 or " * (kind.name != "BF16") + "f32"
            )
        rows, columns = matrix.shape
        _, size = self.shape(rows, columns, kind)
        if kind.name.lower() in _BY_LLAMA_CPP:
            stored = np.empty((rows, size), dtype=np.uint8)
            assert self._llama_cpp is not None
            written = self._llama_cpp.ggml_quantize_chunk(
                int(kind), matrix.ctypes.data, stored.ctypes.data, 0, rows, columns, None
            )
            assert written == stored.nbytes, (kind, written)
            return stored
        with np.errstate(divide="ignore", invalid="ignore"):  # blocks of zeros
            stored = self._gguf.quants.quantize(matrix, kind)
        return np.ascontiguousarray(stored).view(np.uint8).reshape(rows, size)

    def dequantize(
        self, stored: NDArray[np.uint8], kind: GGMLQuantizationType
    ) -> NDArray[np.float32]:
        """The numbers that llama.cpp computes with.

        Args:
            stored: What `quantize` gave, uint8 [rows, bytes of a row].
            kind: Its type.

        Returns:
            float32 [rows, columns].
        """
        if kind.name in ("F32", "F16"):
            stored = stored.view(np.float32 if kind.name == "F32" else np.float16)
        numbers: NDArray[np.float32] = self._gguf.quants.dequantize(stored, kind)
        return numbers

    def _block(self, name: str) -> int:
        """How many numbers are stored together."""
        size: int = self._gguf.GGML_QUANT_SIZES[self._gguf.GGMLQuantizationType[name.upper()]][0]
        return size


def _load_llama_cpp(name: str) -> ctypes.CDLL:
    """llama.cpp's library, which xllamacpp brings."""
    try:
        from xllamacpp import xllamacpp

        library = ctypes.CDLL(xllamacpp.__file__)
        quantize = library.ggml_quantize_chunk
    except (ImportError, OSError, AttributeError) as error:
        raise ArgumentError(
            f"type {name!r} is made by llama.cpp's own quantiser: pip install xllamacpp; without"
            f" it there are {', '.join((*_FLOATS, *_BY_LIBRARY))}"
        ) from error
    integer = ctypes.c_int64
    quantize.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 2, *[integer] * 3, ctypes.c_void_p]
    quantize.restype = ctypes.c_size_t
    return library
