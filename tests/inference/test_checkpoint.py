from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.inference.checkpoint import open_checkpoint
from tests.tokenizer.small import vocabulary


@pytest.fixture
def broken(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(checkpoint, tmp_path / "broken"))


def test_weights_are_converted(checkpoint: Path) -> None:
    opened = open_checkpoint(checkpoint, dtype=torch.bfloat16)
    assert next(opened.model.parameters()).dtype == torch.bfloat16
    assert not opened.model.training


def test_recommended_sampling_is_taken_over(broken: Path) -> None:
    fallback = open_checkpoint(broken).sampling
    assert (fallback.temperature, fallback.top_p) == (0.8, 0.95)
    path = broken / "generation_config.json"
    path.write_text(json.dumps({"do_sample": True, "temperature": 0.5, "top_k": None}))
    chosen = open_checkpoint(broken).sampling
    assert (chosen.temperature, chosen.top_k) == (0.5, 0)


def test_missing_directory_is_told_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        open_checkpoint(tmp_path / "nowhere")


def test_vocabulary_of_another_model_is_refused(broken: Path) -> None:
    vocabulary(["猫"]).save(broken)
    with pytest.raises(CheckpointError, match="ids, its vocabulary"):
        open_checkpoint(broken)


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
def test_broken_config_is_named(broken: Path, content: str) -> None:
    (broken / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        open_checkpoint(broken)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file_is_named(broken: Path, name: str) -> None:
    (broken / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        open_checkpoint(broken)


def test_broken_weights_are_refused(broken: Path) -> None:
    (broken / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0garbage!")
    with pytest.raises(CheckpointError, match="cannot load"):
        open_checkpoint(broken)


@pytest.mark.parametrize("device", ["abacus", "cpu:x", "cuda:99"])
def test_device_that_is_not_there_is_named(checkpoint: Path, device: str) -> None:
    with pytest.raises(CheckpointError, match=device):
        open_checkpoint(checkpoint, device=device)
