"""A checkpoint from a stranger resumes the run or is refused by name, before anything is done."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt_neox_japanese.errors import CheckpointError, DataError
from gpt_neox_japanese.files.atomic import checksum
from gpt_neox_japanese.training.checkpoints import reader
from gpt_neox_japanese.training.run import train
from gpt_neox_japanese.training.settings import Architecture, Settings

SHAPE = Architecture(hidden_size=16, layers=1, heads=2)
SETTINGS = Settings(
    sequence_length=16, batch_size=1, steps=2, dtype="fp32", save_every=1, eval_every=99
)

_Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def run(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one checkpoint, after the first of its two steps."""
    output = tmp_path_factory.mktemp("runs") / "run"
    assert train(prepared, output, SETTINGS, SHAPE)
    shutil.rmtree(output / "checkpoint-2")
    return output


@pytest.fixture
def checkpoint(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run" / "checkpoint-1"


def with_new_checksums(checkpoint: Path) -> None:
    manifest = checkpoint / reader.MANIFEST
    value = json.loads(manifest.read_text(encoding="utf-8"))
    value["files"] = {name: checksum(checkpoint / name) for name in value["files"]}
    manifest.write_text(json.dumps(value), encoding="utf-8")


def refused(prepared: Path, checkpoint: Path, said: str) -> None:
    with_new_checksums(checkpoint)
    model = (checkpoint.parent / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=said):
        train(prepared, checkpoint.parent, SETTINGS, SHAPE, resume=True)
    assert (checkpoint.parent / "model.safetensors").read_bytes() == model


def first(tensors: dict[str, torch.Tensor], ending: str) -> str:
    return next(name for name in tensors if name.endswith(ending))


@pytest.mark.parametrize(
    ("ending", "value"),
    [
        ("/exp_avg", torch.zeros(1)),
        ("/exp_avg", torch.zeros(2**16)),
        ("/exp_avg_sq", torch.zeros(0)),
        ("/exp_avg", torch.zeros(16, dtype=torch.float64)),
        ("/exp_avg", torch.zeros(16, dtype=torch.int32)),
        ("/momentum_buffer", torch.zeros(1, 1)),
        ("/step", torch.zeros(1)),
        ("/step", torch.zeros((), dtype=torch.int64)),
        ("/step", None),
    ],
    ids=str,
)
def test_optimizer_state_of_another_shape_dtype_or_name_is_refused(
    prepared: Path, checkpoint: Path, ending: str, value: torch.Tensor | None
) -> None:
    file = checkpoint / reader.OPTIMIZER
    tensors = load_file(file)
    name = first(tensors, ending)
    del tensors[name]
    if value is not None:
        tensors[name] = value
    save_file(tensors, file)
    refused(prepared, checkpoint, rf"optimizer\.safetensors.*{ending}.*remove this checkpoint")


@pytest.mark.parametrize("value", [torch.zeros(1), torch.zeros(16, dtype=torch.int8), None])
def test_weights_of_another_shape_dtype_or_name_are_refused_and_not_exported(
    prepared: Path, checkpoint: Path, value: torch.Tensor | None
) -> None:
    file = checkpoint / reader.MODEL
    tensors = load_file(file)
    name = first(tensors, "norm.weight")
    del tensors[name]
    tensors[name if value is not None else "nobody's"] = torch.zeros(1) if value is None else value
    save_file(tensors, file)
    refused(prepared, checkpoint, r"model\.safetensors.*remove this checkpoint")


def test_a_tensor_of_nobody_is_refused(prepared: Path, checkpoint: Path) -> None:
    file = checkpoint / reader.OPTIMIZER
    save_file({**load_file(file), "nobody/exp_avg": torch.zeros(3)}, file)
    refused(prepared, checkpoint, "holds the unknown tensor 'nobody/exp_avg'")


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (reader.STATE, lambda v: v.clear(), "'settings' is None"),
        (reader.STATE, lambda v: v.update(settings=[]), r"'settings' is \[\]"),
        (reader.STATE, lambda v: v["settings"].update(decay="0.1"), "'settings', decay is '0.1'"),
        (reader.STATE, lambda v: v["settings"].update(sequence_length=[]), "sequence_length is"),
        (reader.STATE, lambda v: v["settings"].update(seed=None), "seed is None"),
        (reader.STATE, lambda v: v.update(data=1), "'data' is 1"),
        (reader.STATE, lambda v: v.update(held_out=1), "'held_out' is 1"),
        (reader.STATE, lambda v: v.update(groups={}), "'groups' is"),
        (reader.STATE, lambda v: v["groups"].pop(), "parameter groups"),
        (reader.STATE, lambda v: v["groups"][0].update(lr="1"), "'groups' is"),
        (reader.STATE, lambda v: v["groups"][0].update(lr=float("nan")), "'groups' is"),
        (reader.STATE, lambda v: v.update(schedule=3), "'schedule' is 3"),
        (reader.STATE, lambda v: v["schedule"].update(last_epoch="1"), "'schedule' is"),
        (reader.STATE, lambda v: v.update(running_loss=None), "'running_loss' is None"),
        (reader.STATE, lambda v: v.update(running_loss=10**400), "'running_loss' is 1000"),
        (reader.STATE, lambda v: v.update(running_loss=1e300), r"'running_loss' is 1e\+300"),
        (reader.STATE, lambda v: v["groups"][0].update(lr=1e300), "'groups' is"),
        (reader.STATE, lambda v: v.update(last_logged=-1), "'last_logged' is -1"),
        (reader.STATE, lambda v: v.update(windows_per_step=0), "'windows_per_step' is 0"),
        (reader.STATE, lambda v: v.update(measured_tokens=-1), "'measured_tokens' is -1"),
        (reader.STATE, lambda v: v.update(base=1), "'base' is 1"),
        (reader.TRAINER_STATE, lambda v: v.clear(), "trainer_state.json"),
        (reader.TRAINER_STATE, lambda v: v.update(global_step="1"), "'global_step' is '1'"),
        (reader.TRAINER_STATE, lambda v: v.update(global_step=2), "'global_step' is 2"),
        (reader.TRAINER_STATE, lambda v: v.update(train_batch_size=0), "'train_batch_size' is 0"),
        (reader.TRAINER_STATE, lambda v: v.update(logging_steps=-0.0), "'logging_steps' is -0.0"),
        (reader.TRAINER_STATE, lambda v: v.update(eval_steps=0), "'eval_steps' is 0"),
        (reader.TRAINER_STATE, lambda v: v.update(save_steps=1.5), "'save_steps' is 1.5"),
        (reader.TRAINER_STATE, lambda v: v.update(log_history=[1]), "'log_history' is"),
        (reader.TRAINER_STATE, lambda v: v.update(max_steps="9"), "'max_steps' is '9'"),
        (reader.TRAINER_STATE, lambda v: v.update(surprise=1), "has 'surprise'"),
    ],
)
def test_a_field_that_no_run_writes_is_named(
    prepared: Path, checkpoint: Path, file: str, change: _Change, said: str
) -> None:
    value = json.loads((checkpoint / file).read_text(encoding="utf-8"))
    change(value)
    (checkpoint / file).write_text(json.dumps(value), encoding="utf-8")
    refused(prepared, checkpoint, said)


def test_a_loss_that_is_a_large_whole_number_is_read_as_a_float(checkpoint: Path) -> None:
    file = checkpoint / reader.STATE
    value = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**value, "running_loss": 10**30}), encoding="utf-8")
    assert torch.zeros(()).fill_(reader.load_progress(checkpoint).running_loss) > 1e29


def test_options_of_the_optimizer_that_a_checkpoint_names_do_not_count(
    run: Path, prepared: Path, checkpoint: Path
) -> None:
    value = json.loads((checkpoint / reader.STATE).read_text(encoding="utf-8"))
    for group in value["groups"]:
        group |= {"amsgrad": True, "fused": None, "betas": [], "params": [], "momentum": "x"}
    value["schedule"] |= {"step": 5, "base_lrs": None, "optimizer": 1}
    (checkpoint / reader.STATE).write_text(json.dumps(value), encoding="utf-8")
    with_new_checksums(checkpoint)
    assert train(prepared, checkpoint.parent, SETTINGS, SHAPE, resume=True)
    expected = load_file(run / "model.safetensors")
    for name, weight in load_file(checkpoint.parent / "model.safetensors").items():
        assert torch.equal(weight, expected[name]), name


@pytest.mark.parametrize(
    "random",
    [
        {"cpu": torch.zeros(7, dtype=torch.uint8)},
        {"cpu": torch.zeros(3)},
        {"gpu": torch.zeros(3)},
        {"cpu": torch.full_like(torch.get_rng_state(), 255)},
    ],
    ids=["short", "float", "other name", "nonsense"],
)
def test_a_broken_state_of_the_generator_is_refused(
    checkpoint: Path, random: dict[str, torch.Tensor]
) -> None:
    before = torch.get_rng_state()
    save_file(random, checkpoint / reader.RANDOM.format(0))
    with pytest.raises(CheckpointError, match=r"random-0\.safetensors"):
        reader.load_rng_state(checkpoint, 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", [reader.MANIFEST, reader.STATE, reader.MODEL, reader.OPTIMIZER])
def test_a_pipe_is_not_waited_for(checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink()
    os.mkfifo(checkpoint / name)
    with pytest.raises(CheckpointError, match="is not a regular file"):
        reader.verify(checkpoint)


@pytest.mark.parametrize("name", ["loss.jsonl", "samples.jsonl", "merged", "runs"])
def test_a_run_is_not_continued_through_links(
    prepared: Path, checkpoint: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "victim").mkdir()
    (checkpoint.parent / name).unlink(missing_ok=True)
    (checkpoint.parent / name).symlink_to(tmp_path / "victim")
    with pytest.raises(DataError, match="is a link"):
        train(prepared, checkpoint.parent, SETTINGS, SHAPE, resume=True)
    assert not list((tmp_path / "victim").iterdir())


@pytest.mark.parametrize("name", [".checkpoint-9.partial", ".checkpoint-1.old", ".export-abc"])
def test_a_run_goes_on_beside_what_a_kill_left(prepared: Path, checkpoint: Path, name: str) -> None:
    (checkpoint.parent / name).mkdir()
    (checkpoint.parent / name / "file").touch()
    assert train(prepared, checkpoint.parent, SETTINGS, SHAPE, resume=True)
    assert not (checkpoint.parent / name).exists()


def test_lines_of_the_log_that_no_run_writes_are_left_out(prepared: Path, checkpoint: Path) -> None:
    log = checkpoint.parent / "loss.jsonl"
    lines = [b"\xff", b"[]", b"{}", b'{"step": "1", "tokens": 1}', b'{"step": 1, "loss": 2}']
    lines += [b'{"step": 1, "tokens": 1, "seconds": NaN}', b"[" * 9999]
    log.write_bytes(log.read_bytes() + b"\n".join(lines))
    assert train(prepared, checkpoint.parent, SETTINGS, SHAPE, resume=True)
    assert {json.loads(line)["step"] for line in log.read_text("utf-8").splitlines()} == {0, 1, 2}
