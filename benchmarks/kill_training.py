"""Training that is killed again and again, and what becomes of it.

    python benchmarks/kill_training.py [--kills 30] [--steps 60] [--seed 0]

A small run is killed (SIGKILL) at random moments, half of them while a checkpoint is being written,
and resumed each time. After every kill the newest checkpoint must be complete, and in the end every
logged loss and every weight must be, bit for bit, that of a run that nobody killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import write_result
from safetensors.torch import load_file

from gpt_neox_japanese import default_model_directory
from gpt_neox_japanese.training.checkpoints import manager
from gpt_neox_japanese.training.data.prepare import prepare
from gpt_neox_japanese.training.run import train
from gpt_neox_japanese.training.settings import Architecture, Settings

TEXT = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"
SHAPE = Architecture(hidden_size=32, layers=2, heads=2)


def main() -> None:
    """Kill, resume, compare; write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-result", action="store_true", help="write no result file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the children are forked, which threads do not survive
    draw = random.Random(arguments.seed)
    settings = Settings(
        sequence_length=32,
        batch_size=4,
        steps=arguments.steps,
        dtype="fp32",
        log_every=3,
        eval_every=7,
        save_every=2,
    )
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        data = corpus(directory)
        started = time.perf_counter()
        assert in_child(lambda: train(data, directory / "whole", settings, SHAPE)) == 0
        whole = time.perf_counter() - started
        run = directory / "killed"
        counts = {"kills": 0, "while saving": 0, "damaged checkpoints": 0}
        while counts["kills"] < arguments.kills:
            saving = draw.random() < 0.5
            after = draw.randrange(1, 40) if saving else draw.uniform(0, whole)
            status = in_child(partial(attempt, data, run, settings, saving, after))
            if status == 0:  # it came to its end: look at it, and begin again
                compare(directory / "whole", run)
                run.rename(directory / f"done-{time.monotonic_ns()}")
                continue
            assert status == -signal.SIGKILL, f"the run ended with {status} instead"
            counts["kills"] += 1
            counts["while saving"] += saving
            counts["damaged checkpoints"] += len(manager.CheckpointManager(run).newest()[1])
            print(
                f"kill {counts['kills']}: {sorted(p.name for p in run.glob('checkpoint-*'))}",
                flush=True,
            )
        assert in_child(lambda: train_or_resume(data, run, settings)) == 0
        compare(directory / "whole", run)
    assert counts["damaged checkpoints"] == 0
    print(counts, "losses and weights equal: yes")
    if not arguments.no_result:
        print(write_result("kill_training", ["torch", "transformers"], **counts, equal=True))


def corpus(directory: Path) -> Path:
    """A prepared corpus of a few documents."""
    lines = [json.dumps({"id": str(n), "text": TEXT * (1 + n % 7)}) for n in range(60)]
    (directory / "works.jsonl").write_text("\n".join(lines), encoding="utf-8")
    prepare(
        [directory / "works.jsonl"],
        default_model_directory(),
        directory / "data",
        held_out=0.2,
        workers=1,
    )
    return directory / "data"


def train_or_resume(data: Path, run: Path, settings: Settings) -> None:
    """As a person would: --resume where there is something to resume, from the start otherwise."""
    newest, _ = manager.CheckpointManager(run).newest() if run.exists() else (None, [])
    if newest is None and run.exists():
        shutil.rmtree(run)
    train(data, run, settings, SHAPE, resume=newest is not None)


def attempt(data: Path, run: Path, settings: Settings, saving: bool, after: float) -> None:
    """Train until a kill: after some seconds, or at some operation of writing files."""
    if saving:
        kill_at_operation(int(after))
    else:
        # Seconds of the run itself: what resuming takes comes on top.
        signal.signal(signal.SIGALRM, lambda *_: kill())
        signal.setitimer(signal.ITIMER_REAL, after)
    train_or_resume(data, run, settings)


def kill_at_operation(number: int) -> None:
    """Be killed at the n-th of the operations that a checkpoint and a model are written with."""
    left = [number]

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                kill()
            return function(*args, **kwargs)

        return call

    patched: list[tuple[Any, str]] = [(os, "fsync"), (Path, "rename"), (Path, "replace")]
    patched += [(manager, "save_file"), (shutil, "rmtree")]
    for owner, name in patched:
        setattr(owner, name, counted(getattr(owner, name)))


def kill() -> None:
    """End this process as nothing else does: no handler, no flush, no farewell."""
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(work: Callable[[], object]) -> int:
    """The exit status of `work` in a process of its own; minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        try:
            work()
        except BaseException as error:
            print(f"the run failed: {error!r}", flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def compare(whole: Path, killed: Path) -> None:
    """Same losses, same measurements, same weights, to the last bit."""

    def losses(run: Path) -> list[object]:
        lines = map(json.loads, (run / "loss.jsonl").read_text(encoding="utf-8").splitlines())
        kept = ("step", "loss", "grad_norm", "learning_rate", "held_out_bits_per_character")
        # A line with a dtype tells where a run began or went on.
        return [[line.get(name) for name in kept] for line in lines if "dtype" not in line]

    assert losses(whole) == losses(killed)
    expected = load_file(whole / "model.safetensors")
    for name, weight in load_file(killed / "model.safetensors").items():
        assert torch.equal(weight, expected[name]), name


if __name__ == "__main__":
    main()
