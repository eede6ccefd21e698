"""Options that change how a run computes or what it tells, and not what it learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from gpt_neox_japanese.training.report.page import read_log
from gpt_neox_japanese.training.run import train
from gpt_neox_japanese.training.settings import Architecture, Settings

SHAPE = Architecture(hidden_size=16, layers=2, heads=2)
SETTINGS = Settings(
    sequence_length=32, batch_size=4, steps=4, learning_rate=1e-2, dtype="fp32", log_every=1
)


def losses(prepared: Path, output: Path, **changes: Any) -> list[float]:
    """The loss of every step of a run."""
    assert train(prepared, output, dataclasses.replace(SETTINGS, **changes), SHAPE)
    return [line["loss"] for line in read_log(output / "loss.jsonl") if "loss" in line]


@pytest.fixture(scope="module")
def plain(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses without any of the options."""
    found = losses(prepared, tmp_path_factory.mktemp("runs") / "plain")
    assert len(found) == SETTINGS.steps
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {"attention": "eager"},
        {"gradient_checkpointing": True},
        {"batch_size": 2, "gradient_accumulation": 2},
        pytest.param({"compile": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # torch's compiler, of itself
def test_the_losses_are_those_of_the_plain_run(
    prepared: Path, plain: list[float], tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert losses(prepared, tmp_path / "run", **changes) == pytest.approx(plain, rel=1e-5)


@pytest.mark.filterwarnings("ignore")  # TensorBoard's own
def test_tensorboard_is_told_every_loss(prepared: Path, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    expected = losses(prepared, tmp_path / "run", report_to=("tensorboard",))
    (written,) = (tmp_path / "run").rglob("events.out.tfevents.*")
    read = events.EventAccumulator(str(written.parent)).Reload()
    told = [event.value for event in read.Scalars("train/loss")]
    assert told == pytest.approx(expected, rel=1e-4)
