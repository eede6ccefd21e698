"""Makes transformers' Auto classes build this package's models, and PEFT know their layers."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, TypeVar

from transformers import AutoConfig
from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseConfig as InTreeConfig

from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig

__all__ = ["register_peft_targets", "register_with"]

_Model = TypeVar("_Model", bound=type)


def register_with(auto_class: Any) -> Callable[[_Model], _Model]:
    """Decorate the model class that an Auto class is to build for the type `gpt_neox_japanese`.

    The in-tree config class is mapped to it too, for code that imported that one directly.

    Args:
        auto_class: Such as `AutoModelForCausalLM`.

    Returns:
        A decorator that registers a class and returns it unchanged.
    """
    AutoConfig.register(GPTNeoXJapaneseConfig.model_type, GPTNeoXJapaneseConfig, exist_ok=True)

    def register(model_class: _Model) -> _Model:
        for config_class in (GPTNeoXJapaneseConfig, InTreeConfig):
            # Not `auto_class.register`: before 5.23 it ignores config classes of transformers' own.
            auto_class._model_mapping._extra_content[config_class] = model_class
        return model_class

    return register


def register_peft_targets() -> None:
    """Let PEFT, if there is one, adapt the layers it adapts in GPT-NeoX: they have these names."""
    if importlib.util.find_spec("peft") is None:
        return
    constants = importlib.import_module("peft.utils.constants")
    for name, mapping in vars(constants).items():
        if name.endswith("_MODULES_MAPPING") and "gpt_neox" in mapping:
            mapping.setdefault(GPTNeoXJapaneseConfig.model_type, mapping["gpt_neox"])
