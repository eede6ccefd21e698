"""What a run is trained with where nobody says."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from gpt_neox_japanese.errors import NeoXJapaneseError
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.training.defaults import Mode, RunFacts, complete_settings, mode_of
from gpt_neox_japanese.training.machine import precision
from gpt_neox_japanese.training.settings import Architecture, RunSettings, Settings

SMALL = GPTNeoXJapaneseConfig(
    vocab_size=8000,
    hidden_size=256,
    num_hidden_layers=6,
    num_attention_heads=4,
    max_position_embeddings=512,
    bos_token_id=0,
    eos_token_id=1,
)
LARGE = GPTNeoXJapaneseConfig(bos_token_id=0, eos_token_id=1)  # the published shape


def facts(mode: Mode = "scratch", train_tokens: int = 10**7, **changes: Any) -> RunFacts:
    usual: dict[str, Any] = {
        "config": SMALL,
        "tokens_per_epoch": lambda _: train_tokens,
        "processes": 1,
        "device": torch.device("cpu"),
        "free_memory": 10**11,
    }
    return RunFacts(mode=mode, **{**usual, **changes})


def made(mode: Mode = "scratch", settings: Settings | None = None, **changes: Any) -> RunSettings:
    return complete_settings(settings or Settings(), facts(mode, **changes))


def test_a_mode_follows_from_start_and_rank() -> None:
    assert mode_of(Settings(), Architecture()) == "scratch"
    assert mode_of(Settings(), "model") == "full"
    assert mode_of(Settings(lora_rank=4), "model") == "lora"


def test_nothing_stays_open() -> None:
    for field in dataclasses.fields(Settings):
        if field.name not in {"tokens", "epochs", "attention", "lora_alpha", "frozen_dtype"}:
            assert getattr(made(), field.name) is not None, field.name


def test_a_trained_model_is_trained_on_at_a_lower_rate_and_so_is_a_larger_one() -> None:
    scratch, full = made(), made("full")
    assert full.learning_rate < scratch.learning_rate / 2
    assert made(config=LARGE).learning_rate < scratch.learning_rate / 4
    assert made(settings=Settings(learning_rate=0.5)).learning_rate == 0.5


@pytest.mark.parametrize("units", [True, False])
def test_the_precision_is_that_of_the_units_of_the_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], units: bool
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: units)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert precision.has_bf16_units(torch.device("cpu")) is units
    assert made().dtype == ("bf16" if units else "fp32")
    assert not capsys.readouterr().err
    assert made(settings=Settings(dtype="bf16")).dtype == "bf16"
    assert ("emulates it" in capsys.readouterr().err) is not units
    assert made(settings=Settings(dtype="fp32")).dtype == "fp32"


def test_the_length_is_in_steps_tokens_or_epochs() -> None:
    step = {"batch_size": 2, "sequence_length": 100, "gradient_accumulation": 5}
    assert made(settings=Settings(**step, tokens=5000)).steps == 5
    assert made(settings=Settings(**step, epochs=0.5), train_tokens=10_000).steps == 5
    assert made(settings=Settings(**step, tokens=5000), processes=5).steps == 1
    assert made(settings=Settings(**step, steps=7)).steps == 7
    assert made("full", Settings(**step), train_tokens=10_000).steps == 30


def test_a_short_run_takes_small_steps() -> None:
    short, long = made(settings=Settings(tokens=10**5)), made(settings=Settings(tokens=10**9))
    assert short.batch_size < long.batch_size
    assert made(settings=Settings(tokens=10**9), processes=8).batch_size == long.batch_size // 8


@pytest.mark.parametrize("mode", ["scratch", "full", "lora"])
def test_little_text_is_still_learned_in_a_hundred_steps(mode: Mode) -> None:
    settings = Settings(lora_rank=4 * (mode == "lora"))
    ten_short_texts = made(mode, settings, train_tokens=14_000)
    assert 100 <= ten_short_texts.steps < 150
    assert ten_short_texts.batch_size == (2 if mode == "scratch" else 1)
    assert made(mode, settings, train_tokens=15_372).steps <= 150
    ten_conversations = made(mode, settings, train_tokens=512)
    assert (ten_conversations.steps, ten_conversations.batch_size) == (100, 1)
    assert made(mode, Settings(epochs=3), train_tokens=512).steps == 3


def test_a_batch_that_does_not_fit_is_taken_in_several_passes() -> None:
    wanted = made(settings=Settings(tokens=10**8))
    fitted = made(settings=Settings(tokens=10**8), free_memory=10**9)
    assert fitted.batch_size < wanted.batch_size
    assert fitted.batch_size * fitted.gradient_accumulation == wanted.batch_size


def test_a_window_is_no_longer_than_the_model_reads() -> None:
    config = GPTNeoXJapaneseConfig(max_position_embeddings=64, bos_token_id=0, eos_token_id=1)
    assert made("full", config=config).sequence_length == 64


def test_one_short_text_fills_a_window() -> None:
    assert made("full", train_tokens=300).sequence_length == 300
    assert made("full", train_tokens=1).sequence_length == 2


def test_what_is_open_in_a_resumed_run_is_as_it_was() -> None:
    begun = made(settings=Settings(steps=50, learning_rate=0.5))
    saved = {**dataclasses.asdict(begun), "dtype": "bf16", "hidden_size": 3}
    again = complete_settings(Settings(dtype="fp32"), facts(free_memory=1), saved)
    assert again == dataclasses.replace(begun, dtype="fp32")
    longer = complete_settings(Settings(steps=60), facts(), saved)
    assert (longer.steps, longer.batch_size) == (60, begun.batch_size)
    by_tokens = complete_settings(Settings(tokens=10**6), facts(), saved)
    assert by_tokens.steps == 10**6 // (begun.batch_size * begun.sequence_length)


@pytest.mark.parametrize("given", [{}, {"batch_size": 6, "gradient_accumulation": 2}])
@pytest.mark.parametrize(("processes", "passes"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_a_resumed_run_takes_the_windows_of_a_step_with_any_number_of_processes(
    given: dict[str, int], processes: int, passes: int
) -> None:
    batch = {"batch_size": 6, "gradient_accumulation": 2}
    saved = dataclasses.asdict(made(settings=Settings(**batch, steps=5), processes=4))
    resumed = complete_settings(Settings(**given), facts(processes=processes), saved, 48)
    assert (resumed.batch_size, resumed.gradient_accumulation) == (6, passes)


@pytest.mark.parametrize(
    ("given", "processes", "said"),
    [
        ({}, 3, "give --batch-size 4 --gradient-accumulation 4"),
        ({"batch_size": 9}, 1, "give --batch-size 8 --gradient-accumulation 6"),
        ({"gradient_accumulation": 3}, 4, "give --batch-size 6 --gradient-accumulation 2"),
        ({}, 5, "48 windows, which 5 processes cannot share; start as many as divide 48"),
    ],
)
def test_a_resumed_run_whose_steps_would_have_other_sizes_is_refused(
    given: dict[str, int], processes: int, said: str
) -> None:
    batch = {"batch_size": 6, "gradient_accumulation": 2}
    saved = dataclasses.asdict(made(settings=Settings(**batch, steps=5), processes=4))
    with pytest.raises(NeoXJapaneseError, match=said):
        complete_settings(Settings(**given), facts(processes=processes), saved, 48)
    fitting = [int(word) for word in said.split() if word.isdecimal()][:2]
    if said.startswith("give"):
        asked = Settings(batch_size=fitting[0], gradient_accumulation=fitting[1])
        complete_settings(asked, facts(processes=processes), saved, 48)


def test_decay_and_warm_up_fit_together_whichever_is_given() -> None:
    assert made(settings=Settings(warmup=1.0)).decay == 0
    assert made(settings=Settings(decay=1.0)).warmup == 0


def test_one_command_resumes_a_run_any_number_of_times() -> None:
    command = Settings(batch_size=6, gradient_accumulation=4, steps=5)
    settings = made(settings=command, processes=2)
    for processes in (4, 4, 2, 8, 1):
        saved = dataclasses.asdict(settings)
        settings = complete_settings(command, facts(processes=processes), saved, 48)
        assert settings.batch_size * settings.gradient_accumulation * processes == 48
