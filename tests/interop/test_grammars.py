"""Structured output of our tokenizers in the libraries themselves, where they are installed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt_neox_japanese import GPTNeoXJapaneseTokenizer
from gpt_neox_japanese.interop.grammars import teach_grammars
from tests.tokenizer.small import vocabulary

TEXTS = ("猫である", "a b\nc", "𠮷野家の龘🐯", "Ω≠é", "한국 어\t", "<SP>", "<|endoftext|>")

Accepts = Callable[[str, list[int]], bool]


@pytest.fixture
def tokenizer(tmp_path: Path) -> GPTNeoXJapaneseTokenizer:
    """One with two ids for ヴ, the second of which is never encoded."""
    vocabulary(["猫", "で", "ある", "ヴ", "ヴ,ヴ", "の"]).save(tmp_path)
    return GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path)


def accepts_of(library: str, tokenizer: GPTNeoXJapaneseTokenizer) -> Accepts:
    """Whether ids can be written under a regular expression, and the text may end there."""
    module: Any = pytest.importorskip(library)
    teach_grammars()
    if library == "xgrammar":
        compiler = module.GrammarCompiler(module.TokenizerInfo.from_huggingface(tokenizer))

        def accepts(regex: str, ids: list[int]) -> bool:
            matcher = module.GrammarMatcher(compiler.compile_regex(regex))
            return all(map(matcher.accept_token, [*ids, tokenizer.eos_token_id]))

        return accepts
    backend = module.hf.from_tokenizer(tokenizer)

    def accepts_too(regex: str, ids: list[int]) -> bool:
        matcher = module.LLMatcher(backend, module.LLMatcher.grammar_from_regex(regex))
        return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()

    return accepts_too


@pytest.mark.parametrize("library", ["xgrammar", "llguidance"])
def test_a_grammar_takes_ids_for_the_texts_that_they_decode_to(
    library: str, tokenizer: GPTNeoXJapaneseTokenizer
) -> None:
    accepts = accepts_of(library, tokenizer)
    for text in TEXTS:
        ids = tokenizer.codec.encode(text)
        regex = re.sub(r"([][{}().*+?^$|\\])", r"\\\1", tokenizer.decode(ids))
        assert accepts(regex, ids), text
    assert not accepts("犬", tokenizer.codec.encode("猫"))


@pytest.mark.parametrize("library", ["xgrammar", "llguidance"])
def test_an_id_that_shares_its_text_with_another_counts_as_that_text(
    library: str, tokenizer: GPTNeoXJapaneseTokenizer
) -> None:
    accepts = accepts_of(library, tokenizer)
    twins = [i for i in range(len(tokenizer)) if tokenizer.decode([i]) == "ヴ"]
    assert len(twins) == 2
    for token_id in twins:
        assert accepts("ヴ", [token_id])
        assert accepts(".", [token_id])
        assert not accepts(".{3,20}", [token_id])


@pytest.mark.parametrize("library", ["xgrammar", "llguidance"])
def test_special_tokens_are_no_text_of_a_grammar(
    library: str, tokenizer: GPTNeoXJapaneseTokenizer
) -> None:
    accepts = accepts_of(library, tokenizer)
    assert not accepts(".*", [tokenizer.bos_token_id])
    assert accepts(".*", tokenizer.codec.encode("<|startoftext|>"))


def test_tokenizers_of_others_are_left_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    xgrammar: Any = pytest.importorskip("xgrammar")
    asked: list[object] = []
    monkeypatch.setattr(xgrammar.TokenizerInfo, "from_huggingface", staticmethod(asked.append))
    teach_grammars()
    xgrammar.TokenizerInfo.from_huggingface("not ours")
    assert asked == ["not ours"]
