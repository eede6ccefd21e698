"""The model in vLLM: this package's layers around vLLM's attention, products and KV cache."""

from __future__ import annotations

from vllm.model_executor.models.transformers import TransformersForCausalLM

from gpt_neox_japanese.interop.head_weights import HeadRenaming

__all__ = ["GPTNeoXJapaneseForCausalLM"]


class GPTNeoXJapaneseForCausalLM(HeadRenaming, TransformersForCausalLM):  # type: ignore[misc]
    """vLLM's wrapper around models of transformers, whose head is called `lm_head`."""
