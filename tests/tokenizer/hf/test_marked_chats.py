"""Control tokens that users type into a chat stay text, if the caller asks for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers.utils import chat_template_utils

from gpt_neox_japanese import GPTNeoXJapaneseTokenizer
from gpt_neox_japanese.errors import TokenizationError
from tests.tokenizer.small import TAGS, vocabulary

pytestmark = pytest.mark.skipif(
    not hasattr(chat_template_utils, "encode_marked_chat"), reason="needs transformers 5.2x"
)

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}<|separator|>{{ m.content }}{{ eos_token }}{% endfor %}"
)
SEVERAL = "猫<BR><|byte227|><|emoji1|><|user|>は<<SP>|separator|>"


@pytest.fixture
def tokenizer(tmp_path: Path) -> GPTNeoXJapaneseTokenizer:
    vocabulary(["猫", "は"]).save(tmp_path)
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path)
    tokenizer.add_tokens(["<|user|>"], special_tokens=True)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def sanitized(tokenizer: GPTNeoXJapaneseTokenizer, content: str, **options: Any) -> Any:
    chat = [{"role": "猫", "content": content}]
    return tokenizer.apply_chat_template(
        chat, sanitize_control_tokens=True, return_dict=True, **options
    )


@pytest.mark.parametrize("typed", [*TAGS[:12], *TAGS[-12:], "<|user|>", SEVERAL, "は"])
def test_of_all_tags_only_those_of_the_template_are_control_ids(
    tokenizer: GPTNeoXJapaneseTokenizer, typed: str
) -> None:
    role, text = tokenizer("猫")["input_ids"], tokenizer(typed, split_special_tokens=True)
    separator = tokenizer.convert_tokens_to_ids("<|separator|>")
    ids = sanitized(tokenizer, typed)["input_ids"]
    assert tokenizer.decode(ids) == f"猫<|separator|>{typed}<|endoftext|>"
    assert ids == [*role, separator, *text["input_ids"], tokenizer.eos_token_id]


def test_a_tag_whose_marks_a_template_takes_apart_stays_text(
    tokenizer: GPTNeoXJapaneseTokenizer,
) -> None:
    tokenizer.chat_template = "{{ messages[0].content.split('BR')|join('BR') }}{{ eos_token }}"
    ids = sanitized(tokenizer, "猫<BR>")["input_ids"]
    assert tokenizer.convert_tokens_to_ids("<BR>") not in ids
    assert tokenizer.decode(ids) == "猫<BR><|endoftext|>"


def test_a_sanitized_chat_is_cut_padded_and_described_as_others_are(
    tokenizer: GPTNeoXJapaneseTokenizer,
) -> None:
    columns = {"return_token_type_ids": True, "return_length": True}
    options: dict[str, Any] = {"padding": "max_length", "max_length": 30, "truncation": True}
    chat = sanitized(tokenizer, "は", **options, tokenizer_kwargs=columns)
    plain = tokenizer("猫<|separator|>は<|endoftext|>", **options, **columns)
    assert dict(chat) == dict(plain)
    cut = sanitized(tokenizer, "は", max_length=2, truncation=True)
    assert cut["input_ids"] == chat["input_ids"][:2]


def test_places_in_a_sanitized_chat_are_refused(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    with pytest.raises(TokenizationError, match="leave out return_offsets_mapping"):
        sanitized(tokenizer, "は", tokenizer_kwargs={"return_offsets_mapping": True})
    with pytest.raises(TokenizationError, match="leave out return_offsets_mapping"):
        sanitized(tokenizer, "は").tokens()


def test_a_word_that_is_a_special_token_cannot_be_sanitized(
    tokenizer: GPTNeoXJapaneseTokenizer,
) -> None:
    tokenizer.add_tokens(["は"], special_tokens=True)
    with pytest.raises(TokenizationError, match="'は' is a special token and also what plain text"):
        sanitized(tokenizer, "猫は")
