"""What a caller may pass to `forward`: the checks, the old spellings, the warnings.

transformers ignores most mistakes of its callers silently. Here a mistake raises, and what is
probably one warns. No check reads a tensor's values while a graph is being compiled.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.continuous_batching.cache import PagedAttentionCache
from transformers.modeling_flash_attention_utils import FlashAttentionKwargs
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import TransformersKwargs

from gpt_neox_japanese.errors import ArgumentError
from gpt_neox_japanese.quantization.torch_matmul import is_compiling_or_tracing

__all__ = [
    "HiddenStatesChoice",
    "Past",
    "as_cache",
    "check_shapes",
    "head_mask_per_layer",
    "keep_hidden_states",
    "or_default",
    "reject_cache",
    "reject_unknown_keywords",
    "unread_keywords",
    "wanted_hidden_states",
    "warn_of_extrapolation",
]

Past = Cache | PagedAttentionCache | Sequence[tuple[Tensor, Tensor]]
"""Keys and values of earlier tokens; the sequence of pairs is transformers 4's spelling."""

HiddenStatesChoice = bool | int | Sequence[int] | None
"""Which hidden states to return: all or none, or one or some by index; None leaves it open."""

# What the attention implementations and the loss of transformers read. An implementation may name
# more (vLLM's takes `attention_instances`): that is looked up in its signature.
_KNOWN_KEYWORDS = frozenset(
    {
        *TransformersKwargs.__annotations__,
        *FlashAttentionKwargs.__annotations__,
        # The loss.
        "ignore_index",
        "num_ids",
        "shift_labels",
        # Continuous batching (`generate_batch`).
        "block_table",
        "logits_indices",
        "logits_processor_args",
        "max_seqlen_k",
        "max_seqlen_q",
        "read_index",
        "write_index",
    }
)


def unread_keywords(keywords: Mapping[str, object], config: PreTrainedConfig) -> set[str]:
    """Find keyword arguments that nothing would read; those that are None say nothing anyway.

    Args:
        keywords: Keyword arguments of `forward` that it does not name itself.
        config: Tells the attention implementation.

    Returns:
        Their names.
    """
    unknown = {name for name, value in keywords.items() if value is not None} - _KNOWN_KEYWORDS
    implementation = ALL_ATTENTION_FUNCTIONS.get(config._attn_implementation)
    if unknown and implementation is not None:
        unknown -= inspect.signature(implementation).parameters.keys()
    return unknown


def reject_unknown_keywords(keywords: Mapping[str, object], config: PreTrainedConfig) -> None:
    """Refuse keyword arguments that nothing would read; nothing is checked in a captured graph.

    Args:
        keywords: Keyword arguments of `forward` that it does not name itself.
        config: Tells the attention implementation.

    Raises:
        TypeError: There are such; the message names them.
    """
    unknown = set() if is_compiling_or_tracing() else unread_keywords(keywords, config)
    if unknown:
        raise TypeError(
            f"forward() got an unexpected keyword argument: {', '.join(sorted(unknown))}; neither "
            f"the model, nor its {config._attn_implementation!r} attention, nor its loss reads it"
        )


def as_cache(
    cache: Past | None, past_key_values: Past | None, config: PreTrainedConfig
) -> Cache | PagedAttentionCache | None:
    """Return what was given under either name as a cache.

    Args:
        cache: A cache, or for each layer its keys and values, [batch, heads, past, head_dim].
        past_key_values: The same, under the older name.
        config: Tells the number of layers.

    Returns:
        The cache. If two were given and one of them is empty, it is filled from the other: so does
        PEFT, which knows the older name only, hand a prefix to `generate`, which keeps a cache
        under the newer one.

    Raises:
        ArgumentError: If two were given and none of them is empty, or if there is not one pair
            for each layer.
    """
    past = past_key_values if cache is None else cache
    if cache is not None and past_key_values is not None and cache is not past_key_values:
        past = _filled(cache, past_key_values) or _filled(past_key_values, cache)
        if past is None:
            raise ArgumentError(
                "cache and past_key_values are two names of one argument; give one of them"
            )
    if past is None or isinstance(past, Cache | PagedAttentionCache):
        return past
    layers = config.num_hidden_layers
    if len(past) != layers or any(pair is None or len(pair) != 2 for pair in past):
        raise ArgumentError(
            f"the cache is a sequence of {len(past)}; pass a Cache, or a (keys, values) pair "
            f"for each of the {layers} layers, or None for a fresh start"
        )
    return DynamicCache(past)


def _filled(empty: Past, prefix: Past) -> Cache | None:
    """Copy a prefix into a cache, and return it; or None unless that one is empty."""
    if not isinstance(empty, Cache) or not isinstance(prefix, DynamicCache):
        return None
    if empty.get_seq_length() or not prefix.get_seq_length():
        return None
    for index, (keys, values, *_) in enumerate(prefix):
        empty.update(keys, values, index)
    return empty


def or_default(value: bool | None, default: bool | None) -> bool:
    """Return an argument, or what the config says where it was left out.

    Args:
        value: What the caller gave, if anything.
        default: What the config says.

    Returns:
        The value as a bool; None counts as False.
    """
    return bool(default if value is None else value)


def wanted_hidden_states(
    chosen: HiddenStatesChoice, default: HiddenStatesChoice
) -> bool | list[int]:
    """Return which hidden states are wanted: all, none, or those with these indices.

    Args:
        chosen: What the caller gave, if anything.
        default: What the config says.

    Returns:
        True for all, False for none, or a list of indices.

    Raises:
        ArgumentError: If it is neither a flag nor indices.
    """
    wanted = default if chosen is None else chosen
    if wanted is None or isinstance(wanted, bool):
        return bool(wanted)
    indices = [wanted] if isinstance(wanted, int) else wanted
    if not isinstance(indices, Iterable) or not all(type(index) is int for index in indices):
        raise ArgumentError(
            f"output_hidden_states is {wanted!r}; give True, False, or indices such as [0, -1]"
        )
    return list(indices)


def keep_hidden_states(states: tuple[Tensor, ...], wanted: list[int]) -> tuple[Tensor | None, ...]:
    """Keep the hidden states with these indices, and None in the others' places.

    Args:
        states: [batch, tokens, hidden] each.
        wanted: Indices; negative ones count from the end, those out of range count for nothing.

    Returns:
        As many as `states`.
    """
    kept = {index % len(states) for index in wanted if -len(states) <= index < len(states)}
    return tuple(state if index in kept else None for index, state in enumerate(states))


def head_mask_per_layer(head_mask: Tensor | None, config: PreTrainedConfig) -> Tensor | None:
    """Return `head_mask` as [layers, heads].

    Args:
        head_mask: [heads], [layers, heads], or None.
        config: Tells the numbers of layers and heads.

    Returns:
        The mask of every layer, or None if there is none.

    Raises:
        ArgumentError: If it is neither [heads] nor [layers, heads].
    """
    if head_mask is None:
        return None
    shape = (config.num_hidden_layers, config.num_attention_heads)
    if tuple(head_mask.shape) not in (shape, shape[1:]):
        raise ArgumentError(
            f"head_mask has shape {tuple(head_mask.shape)}; it must be {shape[1:]} (heads) or "
            f"{shape} (layers, heads)"
        )
    return head_mask.expand(shape)


def reject_cache(cache: object) -> None:
    """Refuse a cache for layers that will run twice.

    Args:
        cache: What the caller gave, if anything.

    Raises:
        ArgumentError: There is a cache.
    """
    if cache is not None:
        raise ArgumentError(
            "gradient checkpointing runs every layer twice, which would extend the cache twice; "
            "pass no cache, or call gradient_checkpointing_disable()"
        )


def check_shapes(name: str, inputs: Tensor, axes: str, position_ids: Tensor | None) -> None:
    """Refuse inputs that are no batch of texts; nothing is checked in a captured graph.

    Args:
        name: Of the inputs, for the message.
        inputs: Token ids or embeddings.
        axes: What their shape must be, such as "[batch, tokens]".
        position_ids: Integers, [batch or 1, tokens], or None.

    Raises:
        ArgumentError: One of them has another shape, there is no token, or a position is no
            integer.
    """
    if is_compiling_or_tracing():
        return
    if inputs.ndim != len(axes.split(",")) or not inputs.shape[1]:
        raise ArgumentError(
            f"{name} has shape {tuple(inputs.shape)}; it must be {axes}, with at least one token"
            f" (of one text alone, {name}[None] makes a batch)"
        )
    batch, tokens = inputs.shape[:2]
    if position_ids is None:
        return
    if position_ids.is_floating_point():
        raise ArgumentError(
            f"position_ids is of {position_ids.dtype}; positions are integers: position_ids.long()"
        )
    if position_ids.shape not in ((batch, tokens), (1, tokens)):
        raise ArgumentError(
            f"position_ids has shape {tuple(position_ids.shape)}; it must be {(batch, tokens)} or"
            f" {(1, tokens)}, or be left out: positions are then counted"
        )


def warn_of_extrapolation(past_length: int | Tensor, tokens: int, config: PreTrainedConfig) -> None:
    """Warn if past and new tokens together are more than the model was made for.

    Args:
        past_length: Tokens in the cache; an integer, or a tensor [], which is not read.
        tokens: New tokens.
        config: Tells `max_position_embeddings` and the rope type.
    """
    # The other rope types exist to go past it.
    if is_compiling_or_tracing() or config.rope_parameters["rope_type"] != "default":
        return
    # A compiled cache counts in a tensor: reading it would wait for the device at every token.
    if isinstance(past_length, Tensor):
        return
    limit = config.max_position_embeddings
    if past_length + tokens > limit:
        warnings.warn(
            f"the sequence is longer than max_position_embeddings={limit}, the most the model was "
            "made for; shorten it, or expect worse text from there on",
            stacklevel=2,
        )
