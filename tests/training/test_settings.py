"""Settings refuse what no run can have, whoever makes them."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import pytest

from gpt_neox_japanese.errors import DataError, NeoXJapaneseError
from gpt_neox_japanese.training.settings import (
    FLOAT_RANGES,
    INTEGER_RANGES,
    Architecture,
    Settings,
    check_same_run,
)

SHAPE = {"hidden_size", "layers", "heads"}


def make(name: str, value: Any) -> Architecture | Settings:
    return (Architecture if name in SHAPE else Settings)(**{name: value})


@pytest.mark.parametrize("name", FLOAT_RANGES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1, "0.1", True])
def test_a_number_is_finite_and_in_its_range(name: str, value: Any) -> None:
    with pytest.raises(NeoXJapaneseError, match=rf"^{name} is .*must be a finite number, 0 "):
        make(name, value)


@pytest.mark.parametrize("name", INTEGER_RANGES)
@pytest.mark.parametrize("value", [1.5, math.nan, -1, 10**30, "7", True])
def test_a_count_is_a_whole_number_in_its_range(name: str, value: Any) -> None:
    with pytest.raises(NeoXJapaneseError, match=rf"^{name} is .*must be an integer, "):
        make(name, value)


@pytest.mark.parametrize("name", ["optimizer", "schedule", "dtype", "save_dtype"])
def test_a_choice_is_one_of_those_there_are(name: str) -> None:
    with pytest.raises(NeoXJapaneseError, match=rf"^{name} is 'other'; it must be one of "):
        make(name, "other")


def test_every_number_has_a_range() -> None:
    kinds = {field.name: field.type for of in (Settings, Architecture) for field in fields(of)}
    numbers = {name for name, kind in kinds.items() if re.match("int|float", str(kind))}
    assert numbers == INTEGER_RANGES.keys() | FLOAT_RANGES.keys()


def test_numbers_of_numpy_and_bounds_themselves_are_taken() -> None:
    numbers: Any = {"batch_size": np.int64(2), "learning_rate": np.float32(0.5)}
    expected = Settings(batch_size=2, learning_rate=0.5)
    assert json.dumps(asdict(Settings(**numbers))) == json.dumps(asdict(expected))
    Settings(warmup=1, decay=0, lora_alpha=None, seed=2**32 - 1)


def test_a_run_is_no_longer_than_can_be_counted() -> None:
    with pytest.raises(NeoXJapaneseError, match="more than can be counted"):
        Settings(steps=2**31 - 1, batch_size=2**31 - 1)


def test_a_run_that_recorded_its_start_as_model_can_be_resumed() -> None:
    saved = {**asdict(Settings()), "model": "first"}
    check_same_run(json.loads(json.dumps(saved)), Settings(), "where/ever/first")
    older = {name: value for name, value in saved.items() if name not in ("ema", "lora_target")}
    check_same_run(json.loads(json.dumps(older)), Settings(), "first")
    with pytest.raises(DataError, match=r"started with ema 0\.0, now it is 0\.9"):
        check_same_run(json.loads(json.dumps(older)), Settings(ema=0.9), "first")
    with pytest.raises(DataError, match="started with init_from 'first', now it is 'second'"):
        check_same_run(json.loads(json.dumps(saved)), Settings(), "second")
