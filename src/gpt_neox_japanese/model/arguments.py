"""What a caller may pass to `forward`: the checks, the old spellings, the warnings.

transformers ignores most mistakes of its callers silently. Here a mistake raises, and what is
probably one warns. No check reads a tensor's values while a graph is being compiled.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Sequence

from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.continuous_batching.cache import PagedAttentionCache
from transformers.modeling_flash_attention_utils import FlashAttentionKwargs
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import TransformersKwargs

from gpt_neox_japanese.errors import NeoXJapaneseError
from gpt_neox_japanese.quantization.torch_products import is_recorded

__all__ = [
    "Past",
    "as_cache",
    "first_given",
    "head_mask_per_layer",
    "refuse_cache",
    "reject_unknown_keywords",
    "warn_of_extrapolation",
    "warn_of_unmasked_padding",
]

Past = Cache | PagedAttentionCache | Sequence[tuple[Tensor, Tensor]]
"""Keys and values of earlier tokens; the sequence of pairs is transformers 4's spelling."""

# What the attention implementations and the loss of transformers read. An implementation may name
# more (vLLM's takes `attention_instances`): that is looked up in its signature.
_KNOWN_KEYWORDS = frozenset(
    {
        *TransformersKwargs.__annotations__,
        *FlashAttentionKwargs.__annotations__,
        # The loss.
        "ignore_index",
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


def reject_unknown_keywords(keywords: Iterable[str], config: PreTrainedConfig) -> None:
    """Raise TypeError for a keyword argument that nothing would read."""
    unknown = set(keywords) - _KNOWN_KEYWORDS
    if not unknown or is_recorded():
        return
    implementation = ALL_ATTENTION_FUNCTIONS.get(config._attn_implementation)
    if implementation is not None:
        unknown -= inspect.signature(implementation).parameters.keys()
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

    Raises:
        NeoXJapaneseError: If both were given, or if there is not one pair for each layer.
    """
    if cache is not None and past_key_values is not None:
        raise NeoXJapaneseError(
            "cache and past_key_values are two names of one argument; give one of them"
        )
    past = past_key_values if cache is None else cache
    if past is None or isinstance(past, Cache | PagedAttentionCache):
        return past
    layers = config.num_hidden_layers
    if len(past) != layers or any(pair is None or len(pair) != 2 for pair in past):
        raise NeoXJapaneseError(
            f"the cache is a sequence of {len(past)}; pass a Cache, or a (keys, values) pair "
            f"for each of the {layers} layers, or None for a fresh start"
        )
    return DynamicCache(past)


def first_given(value: bool | None, default: bool | None) -> bool:
    """Return an argument that may be left to the config."""
    return bool(default if value is None else value)


def head_mask_per_layer(head_mask: Tensor | None, config: PreTrainedConfig) -> Tensor | None:
    """Return `head_mask` as [layers, heads].

    Raises:
        NeoXJapaneseError: If it is neither [heads] nor [layers, heads].
    """
    if head_mask is None:
        return None
    shape = (config.num_hidden_layers, config.num_attention_heads)
    if tuple(head_mask.shape) not in (shape, shape[1:]):
        raise NeoXJapaneseError(
            f"head_mask has shape {tuple(head_mask.shape)}; it must be {shape[1:]} (heads) or "
            f"{shape} (layers, heads)"
        )
    return head_mask.expand(shape)


def refuse_cache(cache: object) -> None:
    """Raise NeoXJapaneseError if there is a cache, for layers that will run twice."""
    if cache is not None:
        raise NeoXJapaneseError(
            "gradient checkpointing runs every layer twice, which would extend the cache twice; "
            "pass no cache, or call gradient_checkpointing_disable()"
        )


def warn_of_unmasked_padding(input_ids: Tensor, config: PreTrainedConfig) -> None:
    """Warn if rows of a batch that came without a mask, int64 [batch, tokens], look left-padded."""
    pad = config.eos_token_id if config.pad_token_id is None else config.pad_token_id
    if is_recorded() or not isinstance(pad, int) or input_ids.numel() == 0:
        return
    starts_with_pad = input_ids[:, 0] == pad
    if starts_with_pad.any() and not starts_with_pad.all():
        warnings.warn(
            f"some rows of input_ids begin with the padding id {pad} and there is no "
            "attention_mask, so padding is read as text; pass the tokenizer's attention_mask",
            stacklevel=2,
        )


def warn_of_extrapolation(past_length: int | Tensor, tokens: int, config: PreTrainedConfig) -> None:
    """Warn if past and new tokens together are more than the model was made for."""
    # The other rope types exist to go past it.
    if is_recorded() or config.rope_parameters["rope_type"] != "default":
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
