"""Names of ids: what libraries for structured output read as the text that an id stands for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken

from gpt_neox_japanese import GPTNeoXJapaneseTokenizer, default_model_directory
from gpt_neox_japanese.errors import TokenizationError
from tests.tokenizer.small import vocabulary

TEXTS = ["a b\nc\td", "\u3000吾輩は 猫\r\n", "한국어 ñ", "🐯😀é", '{"名前": "吾輩"}', "<SP><BR>"]


def tokenizer_of(directory: Path | str) -> GPTNeoXJapaneseTokenizer:
    return GPTNeoXJapaneseTokenizer.from_pretrained(directory)


@pytest.fixture(params=["small", "default", "published"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> GPTNeoXJapaneseTokenizer:
    if request.param == "published":
        return tokenizer_of(request.getfixturevalue("reference_directory"))
    if request.param == "default":
        return tokenizer_of(default_model_directory())
    # い is written in two lines, ‖ is what <U2000U2BFF> decodes to.
    vocabulary(["吾輩", "猫", "は", "い,ゐ", "ゐ", "い", "‖"]).save(tmp_path)
    return tokenizer_of(tmp_path)


def read_with_byte_fallback(name: str) -> bytes:
    """What xgrammar makes of a name where the decoder has a ByteFallback."""
    if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", name):
        return bytes.fromhex(byte[1])
    return name.replace("▁", " ").encode()


def test_names_read_as_tokens_with_byte_fallback_are_what_ids_decode_to(
    tokenizer: GPTNeoXJapaneseTokenizer,
) -> None:
    name_of = {i: name for name, i in tokenizer.get_vocab().items()}
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        data = b"".join(read_with_byte_fallback(name_of[i]) for i in ids)
        assert data.decode() == tokenizer.decode(ids)
    assert {"type": "ByteFallback"} in json.loads(tokenizer.backend_tokenizer.to_str())["decoder"][
        "decoders"
    ]


def test_every_id_has_one_name_and_every_name_leads_back(
    tokenizer: GPTNeoXJapaneseTokenizer,
) -> None:
    tokenizer.add_tokens(["\n", AddedToken("ほげ")])
    vocab = tokenizer.get_vocab()
    named = {i: name for name, i in vocab.items()}
    assert len(named) == len(vocab)
    assert len(tokenizer) == len(vocab)
    assert tokenizer.convert_tokens_to_ids(list(vocab)) == list(vocab.values())
    assert tokenizer.convert_ids_to_tokens(list(vocab.values())) == list(vocab)


def test_the_rust_half_has_the_same_names(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    backend = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=True)
    for name, i in tokenizer.get_vocab().items():
        assert backend.get(name, i) == i
        assert name in backend or name == f"<|id{i}|>"


def test_tags_and_forms_of_the_vocabulary_are_names_too(
    tokenizer: GPTNeoXJapaneseTokenizer,
) -> None:
    for tag, name in (("<SP>", " "), ("<BR>", "\n"), ("<TAB>", "\t"), ("<|byte227|>", "<0xE3>")):
        token_id = tokenizer.convert_tokens_to_ids(tag)
        assert token_id == tokenizer.convert_tokens_to_ids(name) == tokenizer.get_vocab()[name]
        assert tokenizer.convert_ids_to_tokens(token_id) == name
        assert tokenizer.convert_tokens_to_string([tag, "a"]) == tokenizer.decode([token_id]) + "a"
    assert tokenizer.tokenize("猫 は\n") == ["猫", "<SP>", "は", "<BR>"]


@pytest.mark.parametrize("name", ["\n", " ", "<0xE3>", "😀", "<|byte227|>", "慶應", "<BR>", "猫"])
@pytest.mark.parametrize("special", [False, True])
def test_what_an_id_is_called_is_not_added_again(tmp_path: Path, name: str, special: bool) -> None:
    vocabulary(["猫", "慶応,慶應"]).save(tmp_path)
    tokenizer = tokenizer_of(tmp_path)
    token_id, vocab = tokenizer.convert_tokens_to_ids(name), tokenizer.get_vocab()
    ids = tokenizer("猫 \n😀<BR>慶應", split_special_tokens=True)["input_ids"]
    assert tokenizer.add_tokens([name], special_tokens=special) == 0
    assert tokenizer.convert_tokens_to_ids(name) == token_id
    assert tokenizer.get_vocab() == vocab
    assert (token_id in tokenizer._special_ids()) == special
    if name != "<BR>" or special:  # which is a word now
        assert tokenizer("猫 \n😀<BR>慶應", split_special_tokens=True)["input_ids"] == ids


def test_a_grammar_accepts_exactly_what_is_written(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    xgrammar = pytest.importorskip("xgrammar")
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer)
    compiler = xgrammar.GrammarCompiler(info)
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        written = re.sub(r"([][{}().*+?^$|\\])", r"\\\1", tokenizer.decode(ids))
        matcher = xgrammar.GrammarMatcher(compiler.compile_regex(written))
        assert all(matcher.accept_token(token_id) for token_id in ids), text
        assert matcher.accept_token(tokenizer.eos_token_id)


def test_a_length_of_numpy_can_be_saved(tmp_path: Path) -> None:
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(default_model_directory())
    tokenizer.model_max_length = np.int64(77)
    tokenizer.save_pretrained(tmp_path)
    assert GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path).model_max_length == 77


@pytest.mark.parametrize("multiple", [0, 2.5, -8])
def test_rows_are_padded_to_multiples_of_a_number_only(multiple: float) -> None:
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(default_model_directory())
    rows = {"input_ids": [[1, 2, 3], [1]]}
    with pytest.raises(TokenizationError, match="pad_to_multiple_of is"):
        tokenizer.pad(rows, pad_to_multiple_of=multiple)
    assert len(tokenizer.pad(rows, pad_to_multiple_of=8)["input_ids"][1]) == 8
