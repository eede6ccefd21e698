from __future__ import annotations

import pytest

from gpt_neox_japanese.corpus import (
    is_held_out,
)


def test_the_held_out_part_has_the_size_asked_for_and_grows_with_it() -> None:
    ids = [str(number) for number in range(20_000)]
    small, large = ({i for i in ids if is_held_out(i, fraction)} for fraction in (0.01, 0.05))
    assert small < large
    assert len(small) == pytest.approx(200, rel=0.3)
    assert len(large) == pytest.approx(1000, rel=0.15)
    assert not any(is_held_out(i, 0) for i in ids)
    assert all(is_held_out(i, 1) for i in ids)
    assert is_held_out("1", 0.5) == is_held_out("1", 0.5)


def test_the_held_out_decision_never_changes() -> None:
    held = [number for number in range(300) if is_held_out(str(number), 0.01)]
    assert held == [178, 245, 286]
