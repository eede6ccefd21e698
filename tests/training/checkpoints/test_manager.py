"""Checkpoints to resume from: complete or not there, whatever happens while they are written."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gpt_neox_japanese.errors import CheckpointError, TrainingError
from gpt_neox_japanese.files import atomic
from gpt_neox_japanese.training.checkpoints import reader
from gpt_neox_japanese.training.checkpoints.manager import CheckpointManager, TrainingState
from gpt_neox_japanese.training.checkpoints.reader import verify

ROOT = Path(__file__).parents[3]


def save(output: Path, step: int) -> None:
    checkpoints = CheckpointManager(output)
    checkpoints.begin(step)
    checkpoints.save_rng_state(step, 0)
    weights = {"w": torch.full((3, 5), float(step))}
    checkpoints.finish(
        TrainingState(step, weights, {"w/m": torch.ones(3, 5)}, {"step": step}), lambda _: None
    )


def test_the_two_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 6, 10):
        save(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-6"]
    newest, problems = CheckpointManager(tmp_path).newest()
    assert (newest, problems) == (tmp_path / "checkpoint-10", [])
    layout = {"w": ((3, 5), torch.float32)}
    assert reader.load_tensors(tmp_path / "checkpoint-10" / reader.MODEL, layout)["w"][0, 0] == 10


def test_a_new_checkpoint_stays_beside_damaged_ones_of_later_steps(tmp_path: Path) -> None:
    for step in (300, 350, 400, 500):
        save(tmp_path / str(step), step)
        (tmp_path / str(step) / f"checkpoint-{step}").rename(tmp_path / f"checkpoint-{step}")
        (tmp_path / str(step)).rmdir()
    for step in (400, 500):
        (tmp_path / f"checkpoint-{step}" / reader.MODEL).write_bytes(b"")
    save(tmp_path, 360)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-350", "checkpoint-360"}
    assert CheckpointManager(tmp_path).newest() == (tmp_path / "checkpoint-360", [])


def test_no_file_of_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for file in (tmp_path / "checkpoint-1").iterdir():
        assert file.suffix in {".json", ".safetensors"}
        with pytest.raises((pickle.UnpicklingError, ValueError, KeyError, EOFError, IndexError)):
            pickle.loads(file.read_bytes())


_FILES = [reader.MODEL, reader.OPTIMIZER, reader.STATE, reader.MANIFEST]


@pytest.mark.parametrize("name", _FILES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_taken(
    tmp_path: Path, name: str
) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    file = tmp_path / "checkpoint-2" / name
    for damage in (file.read_bytes()[:-3], file.read_bytes()[:-3] + b"xxx", None):
        file.write_bytes(damage) if damage is not None else file.unlink()
        newest, problems = CheckpointManager(tmp_path).newest()
        assert newest == tmp_path / "checkpoint-1"
        assert len(problems) == 1
        assert name in problems[0]


def test_a_manifest_from_a_stranger_reads_nothing_outside(tmp_path: Path) -> None:
    save(tmp_path, 1)
    manifest = tmp_path / "checkpoint-1" / reader.MANIFEST
    value = json.loads(manifest.read_text(encoding="utf-8"))
    value["files"]["../secret"] = [0, 0]
    manifest.write_text(json.dumps(value), encoding="utf-8")
    (tmp_path / "secret").touch()
    with pytest.raises(CheckpointError, match=r"names the file '\.\./secret'"):
        verify(tmp_path / "checkpoint-1")


def failing(real: Callable[..., object], at: int) -> Callable[..., object]:
    calls = iter(range(10**6))

    def call(*args: object, **kwargs: object) -> object:
        if next(calls) == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **kwargs)

    return call


@pytest.mark.parametrize("at", range(6))
def test_a_disk_that_fills_up_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    save(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", failing(os.fsync, at))
        with pytest.raises(TrainingError, match=r"No space left.*checkpoint-1 is complete"):
            save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    verify(tmp_path / "checkpoint-1")
    save(tmp_path, 2)
    verify(tmp_path / "checkpoint-2")


def test_a_file_system_that_refuses_a_write_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    """The kernel itself cuts a write short: no file may grow beyond 64 KB."""
    code = f"""
import resource, signal, torch
from pathlib import Path
from tests.training.checkpoints.test_manager import save, CheckpointManager, TrainingState
save(Path({str(tmp_path)!r}), 1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
checkpoints = CheckpointManager(Path({str(tmp_path)!r}))
checkpoints.begin(2)
checkpoints.save_rng_state(2, 0)
large = TrainingState(2, {{"w": torch.ones(10**6)}}, {{"w/m": torch.ones(1)}}, {{}})
checkpoints.finish(large, lambda _: None)
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert "TrainingError: the checkpoint of step 2 cannot be saved" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    verify(tmp_path / "checkpoint-1")


def test_a_file_is_replaced_at_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    atomic.write_file(file, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", failing(os.fsync, 0))
        with pytest.raises(OSError, match="No space"):
            atomic.write_file(file, b"new")
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_killed_runs_end_with_the_losses_and_weights_of_a_whole_one() -> None:
    command = [sys.executable, "-W", "ignore", "benchmarks/kill_training.py", "--no-result"]
    result = subprocess.run(
        [*command, "--kills", "4", "--steps", "12"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "losses and weights equal: yes" in result.stdout
