"""What every process of SGLang calls as it starts: an entry point of the package."""

from __future__ import annotations

import gpt_neox_japanese
from gpt_neox_japanese.interop.grammars import teach_grammars

__all__ = ["register"]


def register() -> None:
    """Make SGLang load models of this kind with this package's classes.

    Repeating it is harmless.
    """
    from sglang.srt.models.registry import ModelRegistry

    # By name too: SGLang asks `transformers.GPTNeoXJapaneseForCausalLM` what it can do.
    gpt_neox_japanese.register()
    teach_grammars()
    # Takes the `EntryClass` of each module in a package.
    ModelRegistry.register(__package__, overwrite=True, strict=True)
