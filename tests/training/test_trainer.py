"""What the trainer does around a measurement."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from torch import nn

from gpt_neox_japanese.training import trainer
from gpt_neox_japanese.training.optim.weight_average import WeightAverage
from gpt_neox_japanese.training.run import train
from tests.training.test_run import SETTINGS, SHAPE


def test_weights_are_sharded_again_before_an_average_is_taken_back(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    swap = WeightAverage._swap

    def swapped(average: WeightAverage) -> None:
        order.append("swap")
        swap(average)

    def sharded(model: nn.Module) -> None:
        assert dict(model.named_parameters())
        order.append("shard")

    monkeypatch.setattr(WeightAverage, "_swap", swapped)
    monkeypatch.setattr(trainer, "shard_again", sharded)
    settings = dataclasses.replace(SETTINGS, steps=2, eval_every=1, save_every=1, ema=0.5)
    assert train(prepared, tmp_path / "run", settings, SHAPE)
    assert order == ["swap", "shard", "swap"] * 3
