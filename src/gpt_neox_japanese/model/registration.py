"""Makes transformers' Auto classes build this package's model."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers import GPTNeoXJapaneseConfig as InTreeConfig

from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig

__all__ = ["register"]


def register() -> None:
    """Register config and model under the model type `gpt_neox_japanese`; repeating is harmless.

    The in-tree config class is mapped to our model too, for code that imported it directly;
    releases of transformers that reserve their own classes ignore that part.
    """
    # Not at the top: modeling.py calls this function at the end of its own import.
    from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM, GPTNeoXJapaneseModel

    AutoConfig.register(GPTNeoXJapaneseConfig.model_type, GPTNeoXJapaneseConfig, exist_ok=True)
    for config_class in (GPTNeoXJapaneseConfig, InTreeConfig):
        AutoModel.register(config_class, GPTNeoXJapaneseModel, exist_ok=True)
        AutoModelForCausalLM.register(config_class, GPTNeoXJapaneseForCausalLM, exist_ok=True)
