"""The network on a processor: weights where they lie, a cache, and the compiled functions."""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.inference.cpu.prefill import ChunkedPrefill
from gpt_neox_japanese.inference.cpu.thread_pool import ThreadPool
from gpt_neox_japanese.inference.cpu.workspace import RotationTables, make_workspace
from gpt_neox_japanese.inference.loading.hparams import HParams
from gpt_neox_japanese.inference.loading.weight_map import Weights
from gpt_neox_japanese.inference.network import BatchToken
from gpt_neox_japanese.kernels.compile import processor
from gpt_neox_japanese.kernels.constants import MAX_FEW_ROWS
from gpt_neox_japanese.machine import performance_cores, usable_cores

__all__ = ["CompiledNetwork"]

# Private, or a forked process would write into its parent's cache. Linux does not count the room of
# texts that nobody has written yet; Python knows the name of MAP_NORESERVE from 3.13 on.
_MAPPING: dict[str, Any] = {}
if sys.platform != "win32":
    _MAPPING["flags"] = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
if sys.platform == "linux":
    _MAPPING["flags"] |= 0x4000


class CompiledNetwork:
    """A causal language model for up to `slots` texts, in compiled code; see `network.Network`.

    Activations are float32. Weights stay in the form in which they are given.

    Args:
        hparams: Sizes and constants.
        weights: The tensors of the model.
        slots: Texts that the cache holds at once.
        capacity: Tokens of each; None for as many as the model can read.
        bfloat16_cache: Keep keys and values in bfloat16 rather than in float32.
        threads: None for one on each core that the process may use, on Apple's processors on each
            performance core.
    """

    def __init__(
        self,
        hparams: HParams,
        weights: Weights,
        *,
        slots: int = 1,
        capacity: int | None = None,
        bfloat16_cache: bool = False,
        threads: int | None = None,
    ) -> None:
        self.hparams = hparams
        self.max_rows = MAX_FEW_ROWS
        self.slots = slots
        self.capacity = capacity or hparams.max_position_embeddings
        self.threads = threads or min(usable_cores(), performance_cores() or usable_cores())
        self.weights = weights
        # Memory that is never written takes no room, so capacity is free until it is used.
        size = (hparams.num_hidden_layers, slots, hparams.num_attention_heads, self.capacity)
        kind = np.dtype(np.uint16 if bfloat16_cache else np.float32)
        self._keys, self._values = (_reserve((*size, hparams.head_dim), kind) for _ in range(2))
        self._tables = RotationTables(hparams, self.capacity)
        self._workspace = make_workspace(
            hparams, weights, self._keys, self._values, self._tables, self.threads
        )
        self._pool = ThreadPool(self._workspace)
        self._prefill = ChunkedPrefill(hparams, weights, self._workspace)

    @property
    def description(self) -> str:
        """What runs, in one line."""
        kind = self.weights.layers[0].dense.format
        return (
            f"compiled for {processor()}, {kind} weights, {self.threads} threads,"
            f" {self.slots} slots"
        )

    def decode(
        self, tokens: Sequence[BatchToken], num_without_logits: int = 0
    ) -> NDArray[np.float32]:
        """See `Network.decode`."""
        count = len(tokens)
        self._tables.extend(max(token.position for token in tokens) + 1)
        self._workspace.tokens[:, :count] = np.transpose(tokens)
        self._workspace.batch[:] = count, num_without_logits
        self._pool.step()
        return self._workspace.logits[num_without_logits:count]

    def prefill(
        self,
        ids: Sequence[int],
        slot: int,
        position: int,
        *,
        is_wanted: Callable[[], bool] = lambda: True,
        with_logits: bool = False,
    ) -> NDArray[np.float32] | None:
        """See `Network.prefill`."""
        self._tables.extend(position + len(ids))
        hidden = self._prefill.prefill(ids, slot, position, is_wanted)
        if hidden is None:
            return None
        return self._prefill.logits(hidden if with_logits else hidden[:0])

    def copy(self, source: int, target: int, length: int) -> None:
        """See `Network.copy`."""
        for states in (self._keys, self._values):
            states[:, target, :, :length] = states[:, source, :, :length]

    def truncate(self, slot: int, length: int) -> None:
        """See `Network.truncate`; nothing behind a token is read here, so it may lie there."""

    def close(self) -> None:
        """See `Network.close`."""
        self._pool.close()


def _reserve(size: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array of zeros whose memory is only taken when it is written."""
    length = math.prod(size) * dtype.itemsize
    try:
        memory = mmap.mmap(-1, length, **_MAPPING)
    except (OSError, OverflowError, ValueError) as error:
        raise CheckpointError(
            f"the system gives no {length:,} bytes to the KV cache of {size[1]} texts of"
            f" {size[3]:,} tokens; choose fewer slots, or lower max_position_embeddings of"
            " config.json"
        ) from error
    return np.frombuffer(memory, dtype).reshape(size)
