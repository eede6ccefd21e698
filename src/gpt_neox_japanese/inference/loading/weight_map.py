"""The tensors of a checkpoint, found by their names and put in the places of the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.inference.loading.hparams import HParams
from gpt_neox_japanese.quantization.bfloat16_arrays import bfloat16_array, float32_array
from gpt_neox_japanese.quantization.checkpoint_tensors import HEAD, PREFIX, tensor_shapes
from gpt_neox_japanese.quantization.formats import Matrix, find_matrix, find_tensor

__all__ = ["TABLES", "Layer", "Weights", "map_weights"]

TABLES = (f"{PREFIX}embed_in.weight", HEAD)
"""The matrices with a row for each id: embedding and head."""

Norm = NDArray[np.float32]
"""[2, channels]: weight and bias."""


class Layer(NamedTuple):
    """The tensors of one layer, as the checkpoint names them."""

    input_norm: Norm
    query_key_value: Matrix  # [heads * 3 * head_dim, hidden]
    dense: Matrix  # [hidden, hidden]
    dense_bias: NDArray[np.float32] | None  # [hidden], in the last layer only
    post_attention_norm: Norm
    up_proj: Matrix  # [intermediate_size, hidden]
    down_proj: Matrix  # [hidden, intermediate_size]

    @property
    def matrices(self) -> tuple[Matrix, Matrix, Matrix, Matrix]:
        """The four products, in the order in which they are computed."""
        return self.query_key_value, self.dense, self.up_proj, self.down_proj


class Weights(NamedTuple):
    """All tensors of a network. A tied head is the embedding itself."""

    embedding: Matrix  # [vocabulary, hidden]
    layers: tuple[Layer, ...]
    final_norm: Norm
    head: Matrix  # [vocabulary, hidden]

    @property
    def matrices(self) -> list[Matrix]:
        """Every matrix once."""
        tables = [self.embedding] + ([] if self.head is self.embedding else [self.head])
        return tables + [matrix for layer in self.layers for matrix in layer.matrices]


def map_weights(
    hparams: HParams, tensors: Mapping[str, NDArray[Any]], *, bfloat16: bool
) -> Weights:
    """Find the tensors of a network.

    Args:
        hparams: Sizes and constants.
        tensors: By name; bfloat16 as uint16, and floats may be float16 too. Names that the network
            does not need, such as the attention masks of old checkpoints, are ignored.
        bfloat16: Round floats to bfloat16. Otherwise they keep their value: what is stored in
            bfloat16 stays so, everything else becomes float32.

    Returns:
        The weights by their places in the network; a tied head is the embedding.

    Raises:
        CheckpointError: A tensor is missing or has another shape than the config says.
    """
    last = hparams.num_hidden_layers - 1
    matrices, vectors = tensor_shapes(
        vocab_size=hparams.vocab_size,
        hidden_size=hparams.hidden_size,
        intermediate_size=hparams.intermediate_size,
        num_hidden_layers=hparams.num_hidden_layers,
    )
    convert_layers = _to_one_kind(_kinds(tensors, f"{PREFIX}layers."), bfloat16)
    kinds_of_tables = set().union(*(_kinds(tensors, name) for name in TABLES))
    convert_tables = _to_one_kind(kinds_of_tables, bfloat16)
    if np.dtype(np.uint8) in kinds_of_tables:  # rows of int4 are not looked up
        convert_tables = _widened

    def matrix(name: str) -> Matrix:
        convert = convert_tables if name in TABLES else convert_layers
        return convert(find_matrix(tensors, name, matrices[name]))

    def vector(name: str) -> NDArray[np.float32]:
        return float32_array(find_tensor(tensors, name, vectors[name]))

    def norm(name: str) -> Norm:
        return np.stack([vector(f"{name}.weight"), vector(f"{name}.bias")])

    def layer(index: int) -> Layer:
        name = f"{PREFIX}layers.{index}"
        return Layer(
            input_norm=norm(f"{name}.input_layernorm"),
            query_key_value=matrix(f"{name}.attention.query_key_value.weight"),
            dense=matrix(f"{name}.attention.dense.weight"),
            dense_bias=vector(f"{name}.attention.dense_bias") if index == last else None,
            post_attention_norm=norm(f"{name}.post_attention_layernorm"),
            up_proj=matrix(f"{name}.mlp.dense_h_to_4h.weight"),
            down_proj=matrix(f"{name}.mlp.dense_4h_to_h.weight"),
        )

    embedding = matrix(TABLES[0])
    return Weights(
        embedding=embedding,
        layers=tuple(layer(index) for index in range(hparams.num_hidden_layers)),
        final_norm=norm(f"{PREFIX}final_layer_norm"),
        # A tied head is not stored.
        head=matrix(TABLES[1]) if TABLES[1] in tensors else embedding,
    )


def _kinds(tensors: Mapping[str, NDArray[Any]], begin: str) -> set[np.dtype[Any]]:
    """The dtypes of matrices whose names begin so."""
    return {
        tensor.dtype
        for name, tensor in tensors.items()
        if name.startswith(begin) and name.endswith(".weight") and tensor.ndim == 2
    }


def _to_one_kind(kinds: set[np.dtype[Any]], bfloat16: bool) -> Callable[[Matrix], Matrix]:
    """What brings matrices of these dtypes to one, since a network is compiled for one."""
    if len(kinds) == 1 and kinds <= {np.dtype(np.int8), np.dtype(np.uint8)}:
        return lambda matrix: matrix
    if kinds == {np.dtype(np.uint16)}:
        return lambda matrix: Matrix(np.ascontiguousarray(matrix.numbers))
    if bfloat16:
        return lambda matrix: Matrix(bfloat16_array(matrix.floats()))
    return _widened


def _widened(matrix: Matrix) -> Matrix:
    return Matrix(matrix.floats())
