"""The model in SGLang: this package's layers around SGLang's attention, products and KV cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from sglang.srt.models.transformers import TransformersForCausalLM
from sglang.srt.models.utils import WeightsMapper

from gpt_neox_japanese.interop.head_weights import HeadRenaming

__all__ = ["EntryClass"]


class GPTNeoXJapaneseForCausalLM(HeadRenaming, TransformersForCausalLM):  # type: ignore[misc]
    """SGLang's wrapper around models of transformers, whose head is called `lm_head`."""

    hf_to_sglang_mapper: ClassVar[WeightsMapper] = WeightsMapper(
        orig_to_new_prefix={"gpt_neox_japanese.": "model."}
    )

    def _get_model_tp_plan(self) -> Mapping[str, str]:
        """Without the embedding, which SGLang splits itself, and refuses in a plan."""
        plan = super()._get_model_tp_plan()
        return {name: style for name, style in plan.items() if style != "embedding_rowwise"}


EntryClass = GPTNeoXJapaneseForCausalLM
