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
from gpt_neox_japanese.training.defaults import complete_settings
from gpt_neox_japanese.training.settings import (
    FLOAT_RANGES,
    INTEGER_RANGES,
    Architecture,
    Settings,
    check_same_run,
    upgrade_saved,
)
from tests.training.test_defaults import facts, made

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
    saved = upgrade_saved({**json.loads(json.dumps(asdict(Settings()))), "model": "first"})
    check_same_run(saved, Settings(), "where/ever/first")
    older = {name: value for name, value in saved.items() if name not in ("ema", "lora_target")}
    check_same_run(older, Settings(), "first")
    with pytest.raises(DataError, match=r"started with ema 0\.0, now it is 0\.9"):
        check_same_run(older, Settings(ema=0.9), "first")
    with pytest.raises(DataError, match="started with init_from 'first', now it is 'second'"):
        check_same_run(saved, Settings(), "second")


def test_adapters_of_before_there_was_a_choice_stand_beside_fp32() -> None:
    older = json.loads(json.dumps(asdict(Settings(lora_rank=2)) | {"init_from": "first"}))
    del older["frozen_dtype"]
    same = Settings(lora_rank=2, frozen_dtype="fp32")
    check_same_run(upgrade_saved(older), same, "first")
    assert made("lora", Settings(lora_rank=2, dtype="bf16")).frozen_dtype == "bf16"
    resumed = complete_settings(
        Settings(lora_rank=2, dtype="bf16"), facts("lora"), upgrade_saved(older)
    )
    assert resumed.frozen_dtype == "fp32"


def test_which_model_is_left_stays_as_it_was() -> None:
    saved = upgrade_saved(json.loads(json.dumps(asdict(Settings()) | {"init_from": "first"})))
    with pytest.raises(DataError, match="started with keep_best False, now it is True"):
        check_same_run(saved, Settings(keep_best=True), "first")


@pytest.mark.parametrize("saved", [5, ["sdpa"], {}, True], ids=str)
def test_a_saved_attention_is_a_text(saved: Any) -> None:
    with pytest.raises(NeoXJapaneseError, match=r"attention is .*; it must be a string"):
        complete_settings(Settings(), facts(), {"attention": saved})
