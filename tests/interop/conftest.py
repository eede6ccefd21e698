"""A small model, and a checkpoint of gpt-neox that was made of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gpt_neox_japanese.interop.neox_checkpoints import to_neox
from tests.interop.neox import make_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("neox") / "model")


@pytest.fixture(scope="module")
def written(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`global_step0` of a checkpoint on two GPUs; tests change copies of it."""
    output = tmp_path_factory.mktemp("neox") / "checkpoint"
    to_neox(model, output, model_parallel=2)
    return output / "global_step0"


@pytest.fixture
def step(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written, tmp_path / "step")
    return tmp_path / "step"
