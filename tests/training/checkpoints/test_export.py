"""A model directory is complete when it is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gpt_neox_japanese.files.atomic import move_over
from gpt_neox_japanese.training.checkpoints import export as export_module
from gpt_neox_japanese.training.checkpoints.export import export
from tests.model.small import small_model
from tests.training.checkpoints.test_combine import CODEC


def test_the_configuration_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def move(source: Path, destination: Path) -> None:
        order.append(destination.name)
        move_over(source, destination)

    monkeypatch.setattr(export_module, "move_over", move)
    CODEC.save(tmp_path / "tokenizer")
    model = small_model(CODEC)
    weights = dict(model.named_parameters())
    export(model, weights, tmp_path / "tokenizer", tmp_path / "model", torch.float32)
    assert order[-1] == "config.json"
    assert {"tokenizer_config.json", "model.safetensors"} <= set(order)
