"""A cache that has room: the next token's keys and values are written behind the earlier ones.

transformers' own `DynamicCache` copies all it holds at every token. `extend` hands them to any kind
of cache, the pages of continuous batching included.
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
from gpt_neox_japanese.quantization.torch_matmul import is_recorded

__all__ = ["RoomyLayer", "extend", "give_room"]

# With the new name came that: before, each attention implementation wrote to the pages.
_LAYERS_WRITE_PAGES = CACHE_NAME == "cache"


class RoomyLayer(DynamicLayer):
    """The keys and values of one layer, as views of larger tensors.

    What was handed out before is never written over: after a crop, a reordering, or an exchange of
    `keys` or `values` by somebody else, the next update moves what is held into room of its own.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append [batch, heads, tokens, head_dim] and return everything held."""
        # What autograd saved must not change, and a compiler knows better than to write in place.
        if torch.is_grad_enabled() or is_recorded():
            joined: tuple[Tensor, Tensor] = super().update(key_states, value_states)
            return joined
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        room = self._free_room(start, end)
        if room is None:
            capacity = end + end // 8 + 64
            size = (*key_states.shape[:-2], capacity, key_states.shape[-1])
            room = (key_states.new_empty(size), value_states.new_empty(size))
            if start:
                assert self.keys is not None
                assert self.values is not None
                room[0][..., :start, :] = self.keys
                room[1][..., :start, :] = self.values
        room[0][..., start:end, :] = key_states
        room[1][..., start:end, :] = value_states
        self.keys, self.values = room[0][..., :end, :], room[1][..., :end, :]
        held = (self.keys, self.values)
        _ROOMS[self] = _Room(room, held)
        return held

    def _free_room(self, start: int, end: int) -> tuple[Tensor, Tensor] | None:
        """Return the room if everything from `start` to `end` is free in it."""
        last = _ROOMS.get(self)
        if last is None or not start:
            return None
        untouched = self.keys is last.held[0] and self.values is last.held[1]
        # Outside of inference mode, tensors that were made in it cannot be written to.
        writable = torch.is_inference_mode_enabled() or not last.room[0].is_inference()
        fits = end <= last.room[0].shape[-2]
        return last.room if untouched and writable and fits else None


class _Room(NamedTuple):
    """Where the last update of a layer wrote."""

    room: tuple[Tensor, Tensor]
    """Keys and values and free space behind them, [batch, heads, capacity, head_dim]."""
    held: tuple[Tensor, Tensor]
    """The layer's `keys` and `values` as the update left them."""


# Not attributes of the layers: whoever copies, pickles, compares or exports a cache takes all the
# tensors that he finds there. A copy has no room yet, and the two never write to the same.
_ROOMS: WeakKeyDictionary[RoomyLayer, _Room] = WeakKeyDictionary()


def give_room(past: Cache) -> Cache:
    """Make the layers of a plain `DynamicCache` roomy; any other cache is left alone."""
    if type(past) is DynamicCache and not past.offloading and not is_recorded():
        for layer in past.layers:
            if type(layer) is DynamicLayer:
                layer.__class__ = RoomyLayer
        if past.layer_class_to_replicate is DynamicLayer:
            past.layer_class_to_replicate = RoomyLayer
    return past


def extend(
    cache: Cache | PagedAttentionCache,
    key: Tensor,
    value: Tensor,
    layer: int,
    arguments: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """Add a layer's keys and values and return all there are, [batch, heads, keys, head_dim].

    Args:
        cache: Where they are kept.
        key: [batch, heads, tokens, head_dim].
        value: As `key`.
        layer: Index of the layer.
        arguments: Those of the attention implementation. Pages read there where to write, and leave
            what the implementation needs to find its texts.
    """
    held: tuple[Tensor, Tensor] = (key, value)
    if isinstance(cache, Cache):
        held = cache.update(key, value, layer)
    elif _LAYERS_WRITE_PAGES:
        held = cache.update(key, value, layer, arguments)
    else:
        arguments["cache"] = cache
    return held
