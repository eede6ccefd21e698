"""Who is to blame for an error can be told by its class."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpt_neox_japanese import errors
from gpt_neox_japanese.errors import NeoXJapaneseError

NOT_THE_CALLERS_FAULT = {"QueueFullError", "RemoteError", "TrainingError"}


@pytest.mark.parametrize("name", sorted({*errors.__all__} - {"NeoXJapaneseError"}))
def test_an_error_is_a_value_error_where_the_callers_value_is_to_blame(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, NeoXJapaneseError)
    assert issubclass(error, ValueError) == (name not in NOT_THE_CALLERS_FAULT)


def test_the_drawn_tree_has_every_class_in_its_group() -> None:
    assert errors.__doc__ is not None
    callers, others = errors.__doc__.split("(no ValueError)")
    drawn = [re.findall(r"── (\w+Error)", part) for part in (callers, others)]
    assert {*drawn[1]} == NOT_THE_CALLERS_FAULT
    assert sorted(drawn[0] + drawn[1]) == sorted(errors.__all__)


def test_a_full_queue_is_not_taken_for_a_prompt_that_cannot_be_used() -> None:
    assert not issubclass(errors.QueueFullError, errors.GenerationError)


def test_every_raised_error_says_who_is_to_blame() -> None:
    package = Path(errors.__file__).parent
    bare = [
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if "raise NeoXJapaneseError" in file.read_text(encoding="utf-8")
    ]
    assert not bare
