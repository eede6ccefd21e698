"""Puts this package's classes where transformers finds its own of the same names."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from transformers.models.auto.tokenization_auto import (
    REGISTERED_TOKENIZER_CLASSES,
    TOKENIZER_MAPPING,
)
from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseConfig as InTreeConfig

from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.loading.auto import register_peft_targets
from gpt_neox_japanese.tokenizer.hf.tokenizer import GPTNeoXJapaneseTokenizer

__all__ = ["register", "register_with_auto_classes"]


def register() -> None:
    """Make transformers give this package's classes, by its Auto classes and by name.

    `AutoConfig`, `AutoModel…` and `AutoTokenizer` then do so for every directory, Hub id and config
    object of the model type `gpt_neox_japanese`, and PEFT has default targets for it. The first use
    of one of the classes under `gpt_neox_japanese` does the same.

    Only this function also gives the names `transformers.GPTNeoXJapanese…` to this package's
    classes, because trl and others look the class that config.json names up there. transformers'
    own stay in `transformers.models.gpt_neox_japanese`. Repeating it is harmless.
    """
    register_with_auto_classes()
    classes: list[type] = [GPTNeoXJapaneseConfig, GPTNeoXJapaneseTokenizer]
    for module in _model_modules():
        classes += [getattr(module, name) for name in module.__all__]
    for transformers_module in _copies_of_transformers():
        for each in classes:
            setattr(transformers_module, each.__name__, each)


def register_with_auto_classes() -> None:
    """Make transformers' Auto classes give this package's classes, but not `transformers.GPT…`."""
    _model_modules()  # these register themselves as they are imported
    REGISTERED_TOKENIZER_CLASSES[GPTNeoXJapaneseTokenizer.__name__] = GPTNeoXJapaneseTokenizer
    for config_class in (GPTNeoXJapaneseConfig, InTreeConfig):
        # Not `AutoTokenizer.register`: before 5.23 it ignores config classes of transformers' own.
        TOKENIZER_MAPPING._extra_content[config_class] = GPTNeoXJapaneseTokenizer
    register_peft_targets()


def _copies_of_transformers() -> list[ModuleType]:
    """Return all modules that go by the name `transformers`.

    It runs its `__init__` a second time when `processing_utils` is imported; what was imported
    before holds the first module, `sys.modules` the second.
    """
    importlib.import_module("transformers.processing_utils")
    holders = [vars(module).get("transformers") for module in list(sys.modules.values())]
    copies = [sys.modules["transformers"], *(m for m in holders if isinstance(m, ModuleType))]
    return [module for module in copies if module.__name__ == "transformers"]


def _model_modules() -> list[ModuleType]:
    names = ("heads", "modeling")
    return [importlib.import_module(f"gpt_neox_japanese.model.{name}") for name in names]
