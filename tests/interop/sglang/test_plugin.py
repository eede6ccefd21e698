"""The plug-in, without SGLang: what it tells it. `scripts/test_sglang` runs it in SGLang itself."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import transformers

from gpt_neox_japanese import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.interop.sglang.plugin import register

REGISTRY = "sglang.srt.models.registry"


class ModelRegistry:
    """Notes what it is told."""

    packages: list[str]

    @classmethod
    def register(cls, package: str, *, overwrite: bool, strict: bool) -> None:
        assert overwrite
        assert strict
        cls.packages.append(package)


def test_sglang_is_told_of_the_package_and_finds_our_class_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("sglang", "sglang.srt", "sglang.srt.models", REGISTRY):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    vars(sys.modules[REGISTRY])["ModelRegistry"] = ModelRegistry
    ModelRegistry.packages = []
    register()
    assert ModelRegistry.packages == ["gpt_neox_japanese.interop.sglang"]
    assert transformers.GPTNeoXJapaneseForCausalLM is GPTNeoXJapaneseForCausalLM
