"""The running average of weights: what it is, and a run that leaves it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from gpt_neox_japanese.errors import NeoXJapaneseError
from gpt_neox_japanese.training.optim.weight_average import WeightAverage
from gpt_neox_japanese.training.report.page import read_log
from gpt_neox_japanese.training.run import train
from gpt_neox_japanese.training.settings import Architecture, Settings
from tests.cli.run import run

SHAPE = Architecture(hidden_size=16, layers=2, heads=2)
SETTINGS = Settings(
    sequence_length=32,
    batch_size=4,
    steps=4,
    learning_rate=1e-2,
    dtype="fp32",
    save_dtype="fp32",
    save_every=1,
    ema=0.5,
)


def test_the_average_forgets_its_beginning_by_its_decay() -> None:
    weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    frozen = nn.Parameter(torch.ones(3), requires_grad=False)
    average = WeightAverage([("weight", weight), ("frozen", frozen)], 0.9)
    expected = torch.zeros(3, dtype=torch.float64)
    for step in range(1, 200):
        weight.data = torch.full_like(weight, step)
        average.update(step)
        share = min(0.9, (1 + step) / (10 + step))
        expected = share * expected + (1 - share) * weight.detach()
    torch.testing.assert_close(average.gather(), {"weight": expected})
    assert 199 - expected[0] == pytest.approx(9, rel=0.1)  # 0.9 / (1 - 0.9) steps behind


def test_weights_come_back_bit_for_bit_after_a_failure() -> None:
    weight = nn.Parameter(torch.randn(5))
    before = weight.detach().clone()
    average = WeightAverage([("weight", weight)], 0.5)
    weight.data.mul_(3)
    after = weight.detach().clone()

    def fail() -> None:
        with average.in_place():
            assert torch.equal(weight, before)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert torch.equal(weight, after)
    assert torch.equal(average.gather()["weight"], before)


def test_a_run_measures_leaves_and_resumes_the_average(prepared: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert train(prepared, output, SETTINGS, SHAPE)
    weights = load_file(output / "checkpoint-4" / "model.safetensors")
    averages = load_file(output / "checkpoint-4" / "average.safetensors")
    earlier = load_file(output / "checkpoint-3" / "average.safetensors")
    for name, average in averages.items():
        expected = earlier[name].lerp(weights[name], 1 - 5 / 14)
        torch.testing.assert_close(average, expected)
    left = load_file(output / "model.safetensors")
    for name, weight in left.items():
        assert torch.equal(weight, averages[name]), name

    data = prepared / "held-out.jsonl"
    told = json.loads(run("evaluate", "--model", output, "--data", data, "--json").stdout)
    measured = [line for line in read_log(output / "loss.jsonl") if "held_out" in str(line)]
    assert measured[-1]["held_out_bits_per_character"] == pytest.approx(
        told["bits_per_character"], rel=1e-4
    )

    shutil.copytree(output, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoint-4")
    (tmp_path / "cut" / "model.safetensors").unlink()
    assert train(prepared, tmp_path / "cut", SETTINGS, SHAPE, resume=True)
    for file in ("model.safetensors", "checkpoint-4/average.safetensors"):
        again = load_file(tmp_path / "cut" / file)
        assert all(
            torch.equal(value, again[name]) for name, value in load_file(output / file).items()
        )


def test_a_resumed_run_keeps_its_average(prepared: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    settings = dataclasses.replace(SETTINGS, steps=2)
    assert train(prepared, output, settings, SHAPE)
    without = dataclasses.replace(settings, ema=0.0)
    with pytest.raises(NeoXJapaneseError, match=r"started with ema 0\.5"):
        train(prepared, output, without, SHAPE, resume=True)
    (output / "checkpoint-2" / "average.safetensors").unlink()
    (output / "checkpoint-1" / "average.safetensors").unlink()
    with pytest.raises(NeoXJapaneseError, match="no checkpoint to resume from"):
        train(prepared, output, settings, SHAPE, resume=True)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_that_averages_nothing_is_refused(decay: float) -> None:
    with pytest.raises(NeoXJapaneseError, match="ema"):
        Settings(ema=decay)
