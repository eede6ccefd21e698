"""The tensors of a checkpoint, found by their names and put in the places of the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.inference.numbers import as_bfloat, as_float
from gpt_neox_japanese.inference.shape import Shape
from gpt_neox_japanese.quantization.reference import GROUP, SCALE, unpack_int4

__all__ = ["Layer", "Matrix", "Weights", "arrange"]

_PREFIX = "gpt_neox_japanese."

Norm = NDArray[np.float32]
"""`(2, channels)`: weight and bias."""


class Matrix(NamedTuple):
    """A matrix as it is stored; the dtype of its numbers tells how.

    Attributes:
        numbers: float32 or bfloat16 as uint16, `(outputs, columns)`; int8 of that shape; or int4,
            two to a byte, uint8 `(outputs, columns / 2)`.
        scales: None for floats; float32 `(outputs,)` for int8; bfloat16 as uint16
            `(outputs, groups)` for int4.
    """

    numbers: NDArray[Any]
    scales: NDArray[Any] | None = None

    def floats(self, rows: slice | NDArray[np.intp] = slice(None)) -> NDArray[np.float32]:
        """Some of its rows in float32, `(rows, columns)`."""
        numbers = self.numbers[rows]
        if self.scales is None:
            return as_float(numbers)
        scales = as_float(self.scales[rows])
        if numbers.dtype == np.int8:
            return numbers * scales[:, None]
        groups = unpack_int4(numbers).reshape(len(numbers), -1, GROUP) * scales[:, :, None]
        return groups.reshape(len(numbers), -1)


class Layer(NamedTuple):
    """The tensors of one layer, as the checkpoint names them."""

    norm_1: Norm
    query_key_value: Matrix  # (heads * 3 * head_dim, hidden)
    dense: Matrix  # (hidden, hidden)
    dense_bias: NDArray[np.float32] | None  # (hidden,), in the last layer only
    norm_2: Norm
    widen: Matrix  # (width, hidden)
    narrow: Matrix  # (hidden, width)

    @property
    def matrices(self) -> tuple[Matrix, Matrix, Matrix, Matrix]:
        """The four products, in the order in which they are computed."""
        return self.query_key_value, self.dense, self.widen, self.narrow


class Weights(NamedTuple):
    """All tensors of a network. A tied head is the embedding itself."""

    embedding: Matrix  # (vocabulary, hidden)
    layers: tuple[Layer, ...]
    final_norm: Norm
    head: Matrix  # (vocabulary, hidden)

    @property
    def matrices(self) -> list[Matrix]:
        """Every matrix once."""
        tables = [self.embedding] + ([] if self.head is self.embedding else [self.head])
        return tables + [matrix for layer in self.layers for matrix in layer.matrices]


def arrange(shape: Shape, tensors: Mapping[str, NDArray[Any]], *, bfloat16: bool) -> Weights:
    """Find the tensors of a network.

    Args:
        shape: Sizes and constants.
        tensors: By name; bfloat16 as uint16, and floats may be float16 too. Names that the network
            does not need, such as the attention masks of old checkpoints, are ignored.
        bfloat16: Round floats to bfloat16. Otherwise they keep their value: what is stored in
            bfloat16 stays so, everything else becomes float32.

    Raises:
        CheckpointError: A tensor is missing or has another shape than the config says.
    """
    hidden, last = shape.hidden_size, shape.num_hidden_layers - 1
    tables = [f"{_PREFIX}embed_in.weight", "embed_out.weight"]
    # One network is compiled for one kind of floats, so a single wider tensor widens them all.
    kinds = {
        t.dtype for t in tensors.values() if t.ndim == 2 and t.dtype not in (np.int8, np.uint8)
    }
    convert: Callable[[NDArray[Any]], NDArray[Any]] = np.ascontiguousarray
    if bfloat16:
        convert = as_bfloat
    elif kinds != {np.dtype(np.uint16)}:
        convert = as_float

    def take(name: str, *size: int) -> NDArray[Any]:
        found = tensors.get(name)
        if found is None or found.shape != size:
            what = "is missing" if found is None else f"has shape {found.shape}"
            raise CheckpointError(
                f"the weights do not fit config.json: {name} {what}, {size} is expected"
            )
        return found

    def matrix(name: str, outputs: int, columns: int) -> Matrix:
        found = tensors.get(name)
        if found is not None and found.dtype == np.int8:
            return Matrix(take(name, outputs, columns), take(name + SCALE, outputs))
        if found is not None and found.dtype == np.uint8 and columns % GROUP == 0:
            scales = take(name + SCALE, outputs, columns // GROUP)
            return Matrix(take(name, outputs, columns // 2), scales)
        return Matrix(convert(take(name, outputs, columns)))

    def vector(name: str) -> NDArray[np.float32]:
        return as_float(take(name, hidden))

    def norm(name: str) -> Norm:
        return np.stack([vector(f"{name}.weight"), vector(f"{name}.bias")])

    def layer(index: int) -> Layer:
        name = f"{_PREFIX}layers.{index}"
        return Layer(
            norm_1=norm(f"{name}.input_layernorm"),
            query_key_value=matrix(f"{name}.attention.query_key_value.weight", 3 * hidden, hidden),
            dense=matrix(f"{name}.attention.dense.weight", hidden, hidden),
            dense_bias=vector(f"{name}.attention.dense_bias") if index == last else None,
            norm_2=norm(f"{name}.post_attention_layernorm"),
            widen=matrix(f"{name}.mlp.dense_h_to_4h.weight", shape.width, hidden),
            narrow=matrix(f"{name}.mlp.dense_4h_to_h.weight", hidden, shape.width),
        )

    embedding = matrix(tables[0], shape.vocab_size, hidden)
    return Weights(
        embedding=embedding,
        layers=tuple(layer(index) for index in range(shape.num_hidden_layers)),
        final_norm=norm(f"{_PREFIX}final_layer_norm"),
        # A tied head is not stored.
        head=matrix(tables[1], shape.vocab_size, hidden) if tables[1] in tensors else embedding,
    )
