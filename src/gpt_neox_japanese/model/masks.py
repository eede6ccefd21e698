"""Which tokens each token may look at, as every attention implementation reads it alike."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache
from transformers.generation.continuous_batching.cache import PagedAttentionCache

from gpt_neox_japanese.errors import ArgumentError
from gpt_neox_japanese.quantization.torch_matmul import is_compiling_or_tracing

__all__ = ["as_mask", "document_positions", "warn_of_unmasked_padding"]


def as_mask(
    attention_mask: Tensor | None,
    states: Tensor,
    cache: Cache | PagedAttentionCache | None,
    config: PreTrainedConfig,
) -> Tensor | None:
    """Return the caller's attention mask so that it means the same to every implementation.

    Args:
        attention_mask: [batch, keys], 1 for text and 0 for padding; or prepared, [batch or 1,
            heads or 1, tokens or 1, keys]: true or another integer than 0 where a token may look,
            or floats that are added to the scores.
        states: [batch, tokens, hidden], the new tokens.
        cache: Of earlier tokens, if there are any.
        config: Tells the attention implementation.

    Returns:
        Of a mask [batch, keys] the columns of the tokens that there are; of a prepared one
        booleans, or floats of the dtype of `states` that are finite.

    Raises:
        ArgumentError: It is no tensor, has neither of the shapes, says nothing of some tokens, or
            is prepared for an implementation that reads none; shapes are not checked in a captured
            graph.
    """
    if isinstance(attention_mask, Sequence) or hasattr(attention_mask, "__array_interface__"):
        raise ArgumentError(
            f"attention_mask is of type {type(attention_mask).__name__}; it must be a tensor:"
            " torch.tensor(attention_mask)"
        )
    # A foreign attention implementation may have masks of its own, such as {}; and pages lie where
    # `generate_batch` knows, which prepares their masks.
    if not isinstance(attention_mask, Tensor) or isinstance(cache, PagedAttentionCache):
        return attention_mask
    if attention_mask.ndim == 4:
        return _prepared(attention_mask, states, cache, config._attn_implementation or "")
    batch, tokens = states.shape[:2]
    past_length = 0 if cache is None else cache.get_seq_length()
    past_is_known = not isinstance(past_length, Tensor)
    keys = past_length + tokens if past_is_known else tokens
    shape = tuple(attention_mask.shape)
    if not is_compiling_or_tracing() and (len(shape) != 2 or shape[0] != batch or shape[1] < keys):
        raise ArgumentError(
            f"attention_mask has shape {shape}; it must be {(batch, keys)}, 1 for text and 0 for"
            " padding among the tokens of the cache and the new ones; or [batch, 1, tokens, keys],"
            " which keys each token may look at"
        )
    return attention_mask[:, :keys] if past_is_known else attention_mask


def _prepared(mask: Tensor, states: Tensor, cache: Cache | None, implementation: str) -> Tensor:
    batch, tokens = states.shape[:2]
    # The keys of a cache of fixed size are all its places.
    keys = tokens if cache is None else cache.get_mask_sizes(tokens, 0)[0]
    if not is_compiling_or_tracing():
        shape = tuple(mask.shape)
        if shape[0] not in (1, batch) or shape[2] not in (1, tokens) or shape[3] != keys:
            raise ArgumentError(
                f"attention_mask has shape {shape}; a prepared one must be"
                f" {(batch, 1, tokens, keys)}: which keys each token may look at"
            )
    # One takes paddings only; the other adds booleans, and reads past the end of small masks.
    if "flash" in implementation or implementation == "flex_attention":
        raise ArgumentError(
            f"{implementation!r} attention does not read a prepared attention_mask; give [batch,"
            f" {keys}], or load the model with attn_implementation='sdpa'"
        )
    if mask.is_floating_point():
        # A row of nothing but -inf would have no weights.
        return mask.to(states.dtype).clamp(min=torch.finfo(states.dtype).min)
    return mask.bool()  # numbers are added to the scores, where 0 blocks nothing


def document_positions(
    position_ids: Tensor | None, batch: int, config: PreTrainedConfig
) -> Tensor | None:
    """Return positions that leave off only where a document begins, at 0.

    transformers begins a document wherever positions do not go on by one, also where some are
    skipped or repeated; and with flash attention wherever the least of them stands. Values are read
    only where flash attention reads them, so that a captured graph has the same documents.

    Args:
        position_ids: int64 [batch or 1, tokens], if any were given.
        batch: How many rows there are.
        config: Tells the attention implementation.

    Returns:
        [batch or 1, tokens]; None if none were given.

    Raises:
        ArgumentError: Flash attention, which tells documents apart in one row alone, has more.
    """
    if position_ids is None:
        return None
    breaks = position_ids.diff(dim=-1, prepend=position_ids[:, :1] - 1) != 1
    is_one_text = (breaks & (position_ids != 0)).any(-1, keepdim=True)
    counted = torch.arange(position_ids.shape[-1], device=position_ids.device)
    first = position_ids[:, :1] * (breaks.cumsum(-1) == 0)  # of a document that began before
    documents = torch.where(is_one_text, counted, position_ids - first)
    flash = "flash" in (config._attn_implementation or "") and not is_compiling_or_tracing()
    if flash and batch > 1 and not torch.equal(documents, counted.expand_as(documents)):
        raise ArgumentError(
            f"position_ids begins new documents in a batch of {batch} rows, which"
            f" {config._attn_implementation!r} attention cannot tell apart; give one row, or load"
            " the model with attn_implementation='sdpa'"
        )
    return documents


def warn_of_unmasked_padding(input_ids: Tensor, config: PreTrainedConfig) -> None:
    """Warn if rows of a batch that came without a mask look left-padded.

    Args:
        input_ids: int64 [batch, tokens].
        config: Tells the padding id.
    """
    pad = config.eos_token_id if config.pad_token_id is None else config.pad_token_id
    if is_compiling_or_tracing() or not isinstance(pad, int) or input_ids.numel() == 0:
        return
    starts_with_pad = input_ids[:, 0] == pad
    if starts_with_pad.any() and not starts_with_pad.all():
        warnings.warn(
            f"some rows of input_ids begin with the padding id {pad} and there is no "
            "attention_mask, so padding is read as text; pass the tokenizer's attention_mask",
            stacklevel=2,
        )
