"""The model in vLLM: this package's layers around vLLM's attention, products and KV cache."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from vllm.model_executor.models.transformers import TransformersForCausalLM

from gpt_neox_japanese.interop.head_weights import rename_head

__all__ = ["GPTNeoXJapaneseForCausalLM"]


class GPTNeoXJapaneseForCausalLM(TransformersForCausalLM):  # type: ignore[misc]
    """vLLM's wrapper around models of transformers, whose head is called `lm_head`."""

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load a checkpoint.

        Args:
            weights: Names and tensors of the checkpoint.

        Returns:
            Names of the parameters that were loaded.

        Raises:
            CheckpointError: As `rename_head`.
        """
        tied = bool(self.config.tie_word_embeddings)
        loaded: set[str] = super().load_weights(rename_head(weights, tied=tied))
        return loaded
