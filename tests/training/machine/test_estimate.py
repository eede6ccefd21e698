"""What is told before the first step holds for every optimizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.training.machine import estimate as module
from gpt_neox_japanese.training.machine.estimate import RunEstimate, estimate_run
from gpt_neox_japanese.training.report.mfu import MfuMeter
from tests.training.machine.test_memory_estimate import decided

CONFIG = GPTNeoXJapaneseConfig(
    vocab_size=500,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=64,
    bos_token_id=0,
    eos_token_id=1,
)


@pytest.fixture(autouse=True)
def one_second_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(work: Callable[[], object]) -> float:
        work()
        return 1.0

    monkeypatch.setattr(module, "_seconds", seconds)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def estimate(output: Path, **settings: object) -> RunEstimate:
    given = {"sequence_length": 16, "batch_size": 1, **settings}
    model = GPTNeoXJapaneseForCausalLM(CONFIG)
    meter = MfuMeter(1.0, torch.device("cpu"), torch.float32)
    return estimate_run(
        *(model, decided(**given), output, meter, 1.0),
        steps=10,
        processes=1,
        held_out_tokens=0,
    )


def test_muon_s_own_time_is_in_the_estimate(tmp_path: Path) -> None:
    adamw, muon = (estimate(tmp_path, optimizer=name) for name in ("adamw", "muon"))
    matrices = 2 * 4  # of two layers
    assert muon.seconds - adamw.seconds == pytest.approx(10 * matrices)
    assert muon.tokens_per_second == pytest.approx(10 * 16 / muon.seconds)


def test_a_large_matrix_is_tried_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TRIAL_CHANNELS", 8)
    monkeypatch.setattr(module, "orthogonalize", lambda matrix: shapes.append(tuple(matrix.shape)))
    shapes: list[tuple[int, ...]] = []
    estimate(tmp_path, optimizer="muon")
    assert shapes
    assert all(rows * columns <= 100 for rows, columns in shapes)
