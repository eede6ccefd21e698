"""The model in SGLang: this package's layers around SGLang's attention, products and KV cache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from sglang.srt.models.transformers import TransformersForCausalLM
from sglang.srt.models.utils import WeightsMapper
from torch import Tensor

from gpt_neox_japanese.interop.head_weights import rename_head

__all__ = ["EntryClass"]


class GPTNeoXJapaneseForCausalLM(TransformersForCausalLM):  # type: ignore[misc]
    """SGLang's wrapper around models of transformers, whose head is called `lm_head`."""

    hf_to_sglang_mapper: ClassVar[WeightsMapper] = WeightsMapper(
        orig_to_new_prefix={"gpt_neox_japanese.": "model."}
    )

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

    def _get_model_tp_plan(self) -> Mapping[str, str]:
        """Without the embedding, which SGLang splits itself, and refuses in a plan."""
        plan = super()._get_model_tp_plan()
        return {name: style for name, style in plan.items() if style != "embedding_rowwise"}


EntryClass = GPTNeoXJapaneseForCausalLM
