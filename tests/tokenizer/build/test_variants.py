from __future__ import annotations

import sys

import pytest

from gpt_neox_japanese.errors import VocabularyError
from gpt_neox_japanese.tokenizer.build.variants import Families, modern_kanji

pytest.importorskip("yosina")


@pytest.fixture(scope="module")
def families() -> Families:
    return Families({"国": 5, "國": 1, "竜": 1, "龍": 9, "慶": 1, "応": 2, "應": 1}, modern_kanji())


def test_the_most_frequent_form_names_the_family(families: Families) -> None:
    assert families.fold("國と国、竜と龍") == "国と国、龍と龍"


def test_widths_and_circles_belong_to_the_character_they_repeat(families: Families) -> None:
    assert families.fold("ｱ①㊗⾬｡") == "ア１祝雨。"


def test_full_width_and_ascii_letters_are_kept_apart(families: Families) -> None:
    assert families.fold("ＡA１1") == "ＡA１1"


def test_kanji_of_a_piece_combine_freely(families: Families) -> None:
    assert families.forms("慶応") == ("慶応", "慶應")
    assert {"国応", "國応", "国應", "國應"} <= set(families.forms("国応"))


def test_circles_belong_to_single_characters_only(families: Families) -> None:
    assert "㊗" in families.forms("祝")
    assert "㊗日" not in families.forms("祝日")


def test_kana_of_a_piece_change_width_together(families: Families) -> None:
    assert families.forms("アイ") == ("アイ", "ｱｲ")
    assert families.forms("カード") == ("カード",)  # ｶｰﾄﾞ is longer than segmentation looks
    assert families.forms("ガ") == ("ガ", "ｶﾞ")
    assert families.forms("ヰア") == ("ヰア",)


def test_a_missing_yosina_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yosina", None)
    with pytest.raises(VocabularyError, match=r"pip install 'gpt-neox-japanese\[vocab\]'"):
        modern_kanji()
