from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.stop_strings import StopStrings


def passed(pieces: list[str], stop: list[str]) -> list[str]:
    """What is let through after each piece, and at the end."""
    strings = StopStrings(stop)
    out = []
    for piece in pieces:
        out.append(strings.feed(piece))
        if strings.found:
            return out
    return [*out, strings.finish()]


@given(
    st.lists(st.text("ab", max_size=4), max_size=8),
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=3),
)
def test_the_text_ends_before_the_stop_string_that_is_complete_first(
    pieces: list[str], stop: list[str]
) -> None:
    text = "".join(pieces)
    spans = [
        (start + len(string), start)
        for string in stop
        for start in range(len(text))
        if text.startswith(string, start)
    ]
    expected = text[: min(spans)[1]] if spans else text
    assert "".join(passed(pieces, stop)) == expected
    assert "".join(passed(list(text), stop)) == expected


def test_text_is_not_held_back_longer_than_needed() -> None:
    assert passed(["a", "b", "c"], ["bx"]) == ["a", "", "bc", ""]


def test_one_string_is_one_stop_string() -> None:
    strings = StopStrings("終り")
    assert (strings.feed("終"), strings.feed("終り。")) == ("", "終")
    assert strings.found == "終り"


@pytest.mark.parametrize("stop", ["", [""], ["。", ""], [3]])
def test_stop_string_that_is_no_text_is_refused(stop: list[str]) -> None:
    with pytest.raises(GenerationError, match="stop string"):
        StopStrings(stop)
