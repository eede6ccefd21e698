"""A preallocated KV cache: the next token's keys and values are written behind the earlier ones.

transformers' own `DynamicCache` copies all it holds at every token. `preallocate` makes its layers
allocate ahead; `extend` adds to a cache of any kind, the pages of continuous batching included.
"""
# Methods of transformers carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.generation.continuous_batching.cache import PagedAttentionCache

from gpt_neox_japanese.model.decode.cache_names import CACHE_NAME
from gpt_neox_japanese.quantization.torch_matmul import is_compiling_or_tracing

__all__ = ["PreallocatedLayer", "extend", "preallocate"]

# With the new name came that: before, each attention implementation wrote to the pages.
_LAYERS_WRITE_PAGES = CACHE_NAME == "cache"


class PreallocatedLayer(DynamicLayer):
    """The keys and values of one layer, as views of a buffer that has space for more tokens.

    What was returned before is never written over: after a crop, a reordering, or an exchange of
    `keys` or `values` by somebody else, the next update copies what is held into a new buffer.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values.

        Args:
            key_states: [batch, heads, tokens, head_dim].
            value_states: As `key_states`.
            *args: Not read.
            **kwargs: Not read.

        Returns:
            All keys and all values, [batch, heads, past + tokens, head_dim]; views of the buffer.
        """
        # What autograd saved must not change, and a compiler knows better than to write in place.
        if torch.is_grad_enabled() or is_compiling_or_tracing():
            joined: tuple[Tensor, Tensor] = super().update(key_states, value_states)
            return joined
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        buffer = self._free_buffer(start, end)
        if buffer is None:
            capacity = end + end // 8 + 64
            size = (*key_states.shape[:-2], capacity, key_states.shape[-1])
            buffer = (key_states.new_empty(size), value_states.new_empty(size))
            if start:
                assert self.keys is not None
                assert self.values is not None
                buffer[0][..., :start, :] = self.keys
                buffer[1][..., :start, :] = self.values
        buffer[0][..., start:end, :] = key_states
        buffer[1][..., start:end, :] = value_states
        self.keys, self.values = buffer[0][..., :end, :], buffer[1][..., :end, :]
        held = (self.keys, self.values)
        _BUFFERS[self] = _Buffer(buffer, held)
        return held

    def _free_buffer(self, start: int, end: int) -> tuple[Tensor, Tensor] | None:
        """Return the last buffer if its tokens from `start` to `end` are free, else None."""
        last = _BUFFERS.get(self)
        if last is None or not start:
            return None
        untouched = self.keys is last.held[0] and self.values is last.held[1]
        # Outside of inference mode, tensors that were made in it cannot be written to.
        writable = torch.is_inference_mode_enabled() or not last.tensors[0].is_inference()
        fits = end <= last.tensors[0].shape[-2]
        return last.tensors if untouched and writable and fits else None


class _Buffer(NamedTuple):
    """Where the last update of a layer wrote."""

    tensors: tuple[Tensor, Tensor]
    """Keys and values and free space behind them, [batch, heads, capacity, head_dim]."""
    held: tuple[Tensor, Tensor]
    """The layer's `keys` and `values` as the update left them."""


# Not attributes of the layers: whoever copies, pickles, compares or exports a cache takes all the
# tensors that he finds there. A copy has no buffer yet, and the two never write to the same.
_BUFFERS: WeakKeyDictionary[PreallocatedLayer, _Buffer] = WeakKeyDictionary()


def preallocate(past: Cache) -> Cache:
    """Make the layers of a plain `DynamicCache` allocate ahead; any other cache is left alone.

    Args:
        past: The cache; changed in place.

    Returns:
        The same object.
    """
    if type(past) is DynamicCache and not past.offloading and not is_compiling_or_tracing():
        for layer in past.layers:
            if type(layer) is DynamicLayer:
                layer.__class__ = PreallocatedLayer
        if past.layer_class_to_replicate is DynamicLayer:
            past.layer_class_to_replicate = PreallocatedLayer
    return past


def extend(
    cache: Cache | PagedAttentionCache,
    key: Tensor,
    value: Tensor,
    layer: int,
    arguments: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """Add a layer's keys and values to the cache, and return all: [batch, heads, keys, head_dim].

    Args:
        cache: Where they are kept.
        key: [batch, heads, tokens, head_dim].
        value: As `key`.
        layer: Index of the layer.
        arguments: Keyword arguments of the attention implementation. Pages read there where to
            write, and add what the implementation needs to find its texts.

    Returns:
        All keys and all values of the layer. Pages that the implementation writes to itself give
        `key` and `value` back.
    """
    held: tuple[Tensor, Tensor] = (key, value)
    if isinstance(cache, Cache):
        held = cache.update(key, value, layer)
    elif _LAYERS_WRITE_PAGES:
        held = cache.update(key, value, layer, arguments)
    else:
        arguments["cache"] = cache
    return held
