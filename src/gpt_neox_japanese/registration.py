"""Puts this package's classes where transformers' Auto classes find its own of the same names."""

from __future__ import annotations

import importlib

from transformers.models.auto.tokenization_auto import (
    REGISTERED_TOKENIZER_CLASSES,
    TOKENIZER_MAPPING,
)
from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseConfig as InTreeConfig

from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.registration import give_peft_its_targets
from gpt_neox_japanese.tokenizer.hf import GPTNeoXJapaneseTokenizer

__all__ = ["register"]


def register() -> None:
    """Make `AutoConfig`, `AutoModel…` and `AutoTokenizer` give this package's classes.

    They then do so for every directory, Hub id and config object of the model type
    `gpt_neox_japanese`, and PEFT has default targets for it. The first use of one of the classes
    under `gpt_neox_japanese` does the same. Repeating it is harmless.
    """
    # These register themselves as they are imported.
    for module in ("heads", "modeling"):
        importlib.import_module(f"gpt_neox_japanese.model.{module}")
    REGISTERED_TOKENIZER_CLASSES[GPTNeoXJapaneseTokenizer.__name__] = GPTNeoXJapaneseTokenizer
    for config_class in (GPTNeoXJapaneseConfig, InTreeConfig):
        # Not `AutoTokenizer.register`: before 5.23 it ignores config classes of transformers' own.
        TOKENIZER_MAPPING._extra_content[config_class] = GPTNeoXJapaneseTokenizer
    give_peft_its_targets()
