from __future__ import annotations

import doctest
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_neox_japanese.inference import whole_sentences
from gpt_neox_japanese.inference.whole_sentences import WholeSentences


def shown(pieces: Iterable[str], *, is_broken_off: bool = True, before: str = "") -> str:
    sentences = WholeSentences(before)
    out = [sentences.feed(piece) for piece in pieces]
    return "".join((*out, *sentences.finish(is_broken_off=is_broken_off)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("雨が降る。風が吹", "雨が降る。"),
        ("雨だ！？　風が", "雨だ！？"),
        ("「雨だ。」と言っ", "「雨だ。」"),
        ("「雨だ。風も", "「雨だ。」"),
        ("「『雨だ。』とさ。彼", "「『雨だ。』とさ。」"),
        ("（「雨だ。けれど", "（「雨だ。」）"),
        ("「雨\n彼は黙った。そし", "「雨\n彼は黙った。"),
        ("一\n\n　雨が", "一"),
        ("雨が降る。彼は、\n「いや", "雨が降る。"),
        ("「雨だろう」\n「いや", "「雨だろう」"),
        ("雨が降", "雨が降"),
        ("「雨が降", "「雨が降"),
        ("」。』雨）だ", "」。』"),
        ("", ""),
    ],
)
def test_the_last_sentence_is_whole_and_its_brackets_are_closed(text: str, expected: str) -> None:
    assert shown([text]) == expected
    assert shown(text) == expected


def test_a_text_that_ended_by_itself_stays_as_it_is() -> None:
    assert shown(["「雨だ。風も"], is_broken_off=False) == "「雨だ。風も"


def test_brackets_of_the_prompt_are_closed_too() -> None:
    assert shown(["雨だ。風も"], before="彼は『さあ』と言い「") == "雨だ。」"
    assert shown(["雨だ。風も"], before="「さあ\n彼は") == "雨だ。"


def test_a_sentence_is_shown_as_soon_as_it_has_ended() -> None:
    sentences = WholeSentences()
    pieces = ["「雨", "だ。", "」", "\n", "風", "が。"]
    assert [sentences.feed(piece) for piece in pieces] == ["", "「雨だ。", "」", "", "", "\n風が。"]


@given(st.text("雨。！」「』『\n"), st.booleans())
def test_pieces_do_not_matter_and_nothing_is_changed_but_the_end(text: str, broken: bool) -> None:
    whole = shown([text], is_broken_off=broken)
    assert shown(text, is_broken_off=broken) == whole
    kept = whole.rstrip("」』")
    assert text.startswith(kept)
    if not broken:
        assert whole == text


def test_the_example_of_the_docstring_is_true() -> None:
    assert doctest.testmod(whole_sentences).failed == 0
