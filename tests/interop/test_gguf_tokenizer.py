"""llama.cpp's tokenizer, with the tokens that we write, gives our ids."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_neox_japanese.errors import VocabularyError
from gpt_neox_japanese.interop.gguf_tokenizer import GGUFTokens, TokenType, tokens_of
from gpt_neox_japanese.tokenizer.added_tokens import AddedToken, AddedTokens
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary
from tests.conftest import SHARED
from tests.interop.rwkv_tokenizer import RwkvTokenizer
from tests.interop.samples import (
    HOSTILE,
    canonical,
    corpus_lines,
    default_codec,
    gguf_tokens,
    texts,
)
from tests.tokenizer.small import EMOJI, vocabulary

Twin = tuple[Codec, GGUFTokens, RwkvTokenizer]


@cache
def twin(name: str) -> Twin:
    if name == "published" and not (SHARED / "reference").is_dir():
        pytest.skip("needs the published vocabulary in ../shared/reference")
    codec = default_codec() if name == "default" else Codec.load(SHARED / "reference")
    tokens = gguf_tokens(codec)
    return codec, tokens, RwkvTokenizer(tokens)


def small(pieces: list[str], emoji: dict[str, str] | None = None, **options: bool) -> Twin:
    codec = Codec(vocabulary(["ー", *pieces], emoji), **{"legacy": False, **options})
    tokens = gguf_tokens(codec)
    return codec, tokens, RwkvTokenizer(tokens)


def assert_same_ids(twin: Twin, text: str) -> None:
    codec, tokens, theirs = twin
    assert canonical(tokens, theirs.encode(text)) == codec.encode(text), text


@pytest.mark.parametrize("name", ["default", "published"])
def test_lines_of_the_corpus_have_our_ids(corpus_directory: Path, name: str) -> None:
    for line in corpus_lines(corpus_directory, 2000):
        assert_same_ids(twin(name), line)


@pytest.mark.parametrize("name", ["default", "published"])
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_have_our_ids(name: str, text: str) -> None:
    assert_same_ids(twin(name), text)


@pytest.mark.parametrize("name", ["default", "published"])
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_text_has_our_ids_if_its_emoji_stand_apart(name: str, data: st.DataObject) -> None:
    assert_same_ids(twin(name), data.draw(texts(twin(name)[0])))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("abカー,<1", min_size=1, max_size=3), min_size=1, max_size=12, unique=True),
    st.booleans(),
    st.text("abカー—−,<1😀\ufe0f\u20e3 \n", max_size=12),
)
def test_any_vocabulary_has_our_ids(pieces: list[str], legacy: bool, text: str) -> None:
    pieces = [piece for piece in pieces if piece == "," or "," not in piece]
    emoji = {"1\ufe0f\u20e3": "<|emoji8|>", "😀": "<|emoji1|>"}
    if not legacy:  # whatever follows an emoji would be joined to it
        text = text.replace("\ufe0f", "").replace("\u20e3", "")
    assert_same_ids(small([p for p in pieces if p != "ー"], emoji, legacy=legacy), text)


@pytest.mark.parametrize("name", ["default", "published"])
def test_what_is_decoded_is_our_text(name: str) -> None:
    codec, tokens, theirs = twin(name)
    marks = {p for p, kind in zip(theirs.pieces, tokens.types, strict=True) if kind != 1}
    mark = min(marks, key=len).decode()
    for token_id in range(codec.n_vocab):
        written, text = theirs.decode([token_id]), codec.decode([token_id])
        assert written.lstrip(mark) == text
        # Only what no text becomes carries the mark, which shows nothing; and bytes that the file
        # has no second spelling for.
        if written.startswith(mark):
            assert len(codec.encode(text)) > 1 or text in "\t\n\\nrtx"


def test_spelled_marks_are_text_unless_specials_are_parsed() -> None:
    codec, tokens, theirs = twin("default")
    eos = codec.eot_token
    assert tokens.types[eos] == TokenType.CONTROL
    assert eos not in theirs.encode("猫<|endoftext|>", parse_special=True)
    # A chat template writes the mark as the file has it.
    assert theirs.encode(f"猫{tokens.texts[eos]}", parse_special=True)[-1] == eos
    assert_same_ids((codec, tokens, theirs), f"猫{tokens.texts[eos]}")


def test_an_emoji_that_begins_within_a_form_is_found_first() -> None:
    ours = small(["第", "1", "第1", "回"], {"1\ufe0f\u20e3": "<|emoji8|>"})
    for text in ("第1回", "第1\ufe0f\u20e3回"):
        assert_same_ids(ours, text)


def test_a_form_on_two_lines_belongs_to_the_last() -> None:
    ours = small(["猫", "犬,猫", "熊", "熊"])
    for text in "猫犬熊":
        assert_same_ids(ours, text)


def test_dashes_are_long_vowels_in_forms_and_emoji() -> None:
    ours = small(["カー", "カ"], {"(ー_ー)": "<|emoji8|>"})
    for text in ("カ—", "カ−カー", "(—_−)", "—"):
        assert_same_ids(ours, text)


def test_joined_emoji_are_one_id_as_unicode_lists_them() -> None:
    for text in (
        "❤️。",
        "👨\u200d👩\u200d👧。",
        "👨️\u200d👩\u200d👧️。",
        "🐯️。",
        "👍🏽。",
        "🏳️\u200d🌈。",
    ):
        assert_same_ids(twin("default"), text)


@pytest.mark.parametrize(
    ("pieces", "options", "said"),
    [
        (["ー"], {"clean": True}, "do_clean_text"),
        (["猫"], {}, "no entry 'ー'"),
        (["ー", "a\0b"], {}, "U+0000"),
        (["ー", "ーーーーーーーー"], {}, "long vowels"),
        (["ー", *"\u2060\u2061\u2062\u2063\u2064\u200b"], {}, "U+2060"),
    ],
)
def test_what_llama_cpp_cannot_do_is_refused(
    pieces: list[str], options: dict[str, bool], said: str
) -> None:
    codec = Codec(vocabulary(pieces), legacy=False, **options)
    with pytest.raises(VocabularyError, match=said.replace("+", r"\+")):
        gguf_tokens(codec)


def test_an_emoji_that_cannot_be_found_first_is_refused() -> None:
    with pytest.raises(VocabularyError, match="begins where forms"):
        small(["a\\"], {"\\(^o^)/": "<|emoji8|>"})


@pytest.mark.parametrize("token", [AddedToken("<|user|>", special=True), AddedToken("猫猫猫猫")])
def test_added_tokens_are_refused_by_name(token: AddedToken) -> None:
    codec = default_codec()
    with pytest.raises(VocabularyError, match=token.content.replace("|", r"\|")):
        gguf_tokens(codec.with_added(AddedTokens({8000: token})))


def test_bytes_without_an_id_are_the_unknown_token() -> None:
    tags = [("<|byte227|>",), ("猫",)]
    ours = vocabulary(["ー"])
    surfaces = tuple(forms for forms in ours.surfaces if forms not in tags)
    codec = Codec(Vocabulary(surfaces, EMOJI, ours.emoji_inv), legacy=False)
    tokens = tokens_of(codec, unknown_id=codec.eot_token, stop_ids=[])
    assert_same_ids((codec, tokens, RwkvTokenizer(tokens)), "ぬこ")
