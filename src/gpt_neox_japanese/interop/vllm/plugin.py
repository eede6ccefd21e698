"""What every process of vLLM calls as it starts: an entry point of the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.interop.grammars import teach_grammars
from gpt_neox_japanese.quantization.formats import METHOD
from gpt_neox_japanese.registration import register_with_auto_classes

__all__ = ["register"]

_ARCHITECTURE = "GPTNeoXJapaneseForCausalLM"  # what config.json names


def register() -> None:
    """Make vLLM load models of this kind with this package's classes, and refuse int8 and int4.

    Repeating it is harmless. It loads no Numba: vLLM 0.32 looks through the attributes of every
    imported module as it starts on a CPU, and fails at llvmlite's, which are foreign functions.
    """
    from vllm import ModelRegistry
    from vllm.model_executor.layers.quantization import register_quantization_config
    from vllm.model_executor.layers.quantization.base_config import QuantizationConfig

    class RefusedQuantization(QuantizationConfig):  # type: ignore[misc]
        """Asked whether it knows how a checkpoint is quantised, before vLLM says it knows not."""

        @classmethod
        def override_quantization_method(
            cls, hf_quant_cfg: Mapping[str, Any], *_: Any, **__: Any
        ) -> None:
            if hf_quant_cfg.get("quant_method") == METHOD:
                raise CheckpointError(
                    "vLLM cannot compute with int8 and int4 of neox-ja; give it 16 bits:"
                    " neox-ja convert DIR --to bf16 --output NEW_DIR"
                )

    register_with_auto_classes()
    teach_grammars()
    register_quantization_config(METHOD)(RefusedQuantization)
    ModelRegistry.register_model(
        _ARCHITECTURE, f"gpt_neox_japanese.interop.vllm.model:{_ARCHITECTURE}"
    )
