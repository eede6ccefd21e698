"""Chunked prefill: whole chunks of a prompt as matrix–matrix products (GEMM).

A processor multiplies matrices fastest when many rows share what is read of the weights. What is
computed for a token is the same to the last bit as `decode` computes, wherever chunks begin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.inference.cpu.kernel_decode import Workspace
from gpt_neox_japanese.inference.cpu.kernel_prefill import (
    attend_heads,
    gelu_rows,
    normalize_rows,
)
from gpt_neox_japanese.inference.loading.hparams import HParams
from gpt_neox_japanese.inference.loading.weight_map import Layer, Weights
from gpt_neox_japanese.inference.network import CHUNK
from gpt_neox_japanese.kernels.parallel_for import parallel_for
from gpt_neox_japanese.quantization.formats import Matrix
from gpt_neox_japanese.quantization.matmul import matmul

__all__ = ["ChunkedPrefill"]

Rows = NDArray[np.float32]


class ChunkedPrefill:
    """Computes chunks of prompts into the KV cache of a workspace.

    Args:
        hparams: Sizes and constants.
        weights: The tensors of the model.
        workspace: Its cache, tables and constants are used, nothing else.
    """

    def __init__(self, hparams: HParams, weights: Weights, workspace: Workspace) -> None:
        self._hparams = hparams
        self._weights = weights
        self._workspace = workspace
        self._threads = len(workspace.normed)

    def prefill(
        self, ids: Sequence[int], slot: int, position: int, is_wanted: Callable[[], bool]
    ) -> Rows | None:
        """See `Network.prefill`.

        Args:
            ids: A multiple of CHUNK.
            slot: Where the text is kept.
            position: Of the first id.
            is_wanted: Asked before each layer.

        Returns:
            What the last layer gives, float32 [ids, hidden]; None if it is not wanted any more.
        """
        hidden = self._weights.embedding.floats(np.asarray(ids))
        for index, layer in enumerate(self._weights.layers):
            if not is_wanted():
                return None
            self._attend(hidden, layer, index, slot, position)
            self._transform(hidden, layer)
        return hidden

    def logits(self, hidden: Rows) -> Rows:
        """Scores of what may follow each token.

        Args:
            hidden: Of whole chunks, float32 [tokens, hidden].

        Returns:
            float32 [tokens, vocabulary].
        """
        weights = self._weights
        return self._product(self._normalized(hidden, weights.final_norm), weights.head)

    def _attend(self, hidden: Rows, layer: Layer, index: int, slot: int, position: int) -> None:
        qkv = self._product(self._normalized(hidden, layer.input_norm), layer.query_key_value)
        workspace, attn_out = self._workspace, np.empty_like(hidden)
        keys, values = workspace.keys[index, slot], workspace.values[index, slot]
        heads = self._hparams.num_attention_heads
        for at in range(0, len(hidden), CHUNK):
            part = slice(at, at + CHUNK)
            work = partial(
                attend_heads,
                qkv[part],
                workspace.cos,
                workspace.sin,
                keys,
                values,
                position + at,
                attn_out[part],
            )
            self._together(heads, work)
        hidden += self._product(attn_out, layer.dense)
        if layer.dense_bias is not None:
            hidden += layer.dense_bias

    def _transform(self, hidden: Rows, layer: Layer) -> None:
        mlp_hidden = self._product(
            self._normalized(hidden, layer.post_attention_norm), layer.up_proj
        )
        self._together(
            len(mlp_hidden),
            lambda first, last: gelu_rows(mlp_hidden[first:last], self._workspace.tanh),
        )
        hidden += self._product(mlp_hidden, layer.down_proj)

    def _normalized(self, hidden: Rows, norm: Rows) -> Rows:
        normed = np.empty_like(hidden)
        normalize_rows(hidden, norm, self._workspace.epsilon, normed)
        return normed

    def _together(self, count: int, work: Callable[[int, int], None]) -> None:
        """Share `count` rows or heads out to threads."""
        parallel_for(work, count, self._threads)

    def _product(self, x: Rows, matrix: Matrix) -> Rows:
        """`x` times a matrix, transposed: the very bits that `decode` computes."""
        return matmul(x, matrix, threads=self._threads)
