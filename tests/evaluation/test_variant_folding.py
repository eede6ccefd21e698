from __future__ import annotations

import pytest

from gpt_neox_japanese.evaluation.variant_folding import folded_characters
from gpt_neox_japanese.tokenizer.codec import Codec
from tests.tokenizer.small import vocabulary

CODEC = Codec(vocabulary([*"猫犬", "慶応,慶應", "キロ,㌔"]), legacy=False)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], (0, 0)),
        (["猫犬\n慶応🐱"], (0, 6)),
        (["猫慶應犬\n", "慶應"], (2, 7)),
    ],
)
def test_folded_characters_are_those_that_come_back_as_others(
    texts: list[str], expected: tuple[int, int]
) -> None:
    assert folded_characters(CODEC, texts) == expected


def test_only_the_character_is_folded_where_the_text_that_comes_back_is_longer() -> None:
    assert folded_characters(CODEC, ["猫㌔犬\n慶應㌔"]) == (3, 7)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("㌔猫犬猫犬猫犬\r\n", 2),  # one character more, one fewer: as long as before
        ("猫犬猫犬\r\n", 1),
        ("👍🏽猫犬猫犬㌔", 2),  # 👍 stays, its tone goes
        ("한慶應한", 1),
        ("\r\n猫犬猫犬慶應㌔", 3),
    ],
)
def test_what_lies_between_a_longer_and_a_shorter_form_is_not_folded(
    text: str, expected: int
) -> None:
    assert folded_characters(CODEC, [text]) == (expected, len(text))
