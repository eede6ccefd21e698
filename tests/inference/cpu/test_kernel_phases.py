"""Threads that come late to a step, or not at all."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import numpy as np
import pytest

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.inference.cpu import workspace
from gpt_neox_japanese.inference.cpu.kernel_decode import begin_step, run_steps
from gpt_neox_japanese.inference.cpu.kernel_phases import GO
from gpt_neox_japanese.inference.cpu.network import CompiledNetwork
from tests.inference.networks import network_of, random_model, scores_of

IDS = [5, 3, 1, 4, 9, 2, 6, 7, 11, 30]


def begin(ws: Any, token: int, slot: int, position: int, *, logits: bool = True) -> None:
    """Let the next step read one token."""
    ws.tokens[:, 0] = token, slot, position
    ws.batch[:] = 1, 0 if logits else 1
    begin_step(ws.counters, ws.batch, len(ws.layers))


@pytest.fixture
def network() -> CompiledNetwork:
    made = network_of(random_model(), threads=3, slots=2)
    assert isinstance(made, CompiledNetwork)
    made._tables.extend(len(IDS))  # as `decode` does, which is passed by here
    return made


def test_a_step_is_complete_without_the_threads_that_do_not_come(network: CompiledNetwork) -> None:
    expected = scores_of(network_of(random_model(), threads=1), IDS)
    ws = network._workspace  # its pool is never started: this test is its only thread
    for position, token in enumerate(IDS):
        begin(ws, token, 0, position, logits=token == IDS[-1])
        run_steps(ws, 0, position, 1, -1)
    np.testing.assert_array_equal(ws.logits[0], expected)


def test_a_thread_that_comes_late_changes_nothing(network: CompiledNetwork) -> None:
    ws = network._workspace
    for position, token in enumerate(IDS):
        begin(ws, token, 0, position, logits=position % 2 == 0)
        run_steps(ws, 0, position, 1, -1)
        if position % 3 == 1:  # it knows of an old step only
            before = ws.hidden.copy(), ws.logits.copy(), network._keys.copy()
            assert run_steps(ws, 1, position - 1, 1, -1) == position + 1
            for now, then in zip((ws.hidden, ws.logits, network._keys), before, strict=True):
                np.testing.assert_array_equal(now, then)
    assert ws.counters[GO] == len(IDS)
    expected = scores_of(network_of(random_model(), threads=1), IDS)
    begin(ws, IDS[-1], 0, len(IDS) - 1)
    run_steps(ws, 0, len(IDS), 1, -1)
    np.testing.assert_array_equal(ws.logits[0], expected)


@pytest.mark.parametrize("seconds", [1.0, pytest.param(120.0, marks=pytest.mark.slow)])
def test_threads_that_fall_behind_at_random_change_no_bit(
    network: CompiledNetwork, seconds: float
) -> None:
    ws = network._workspace
    wanted = [scores_of(network_of(random_model(), threads=1), IDS[:n]) for n in (3, 5, 8)]
    ended = False

    def fall_behind(thread_id: int) -> None:
        chance, steps = random.Random(thread_id), 0
        while not ended:
            steps = run_steps(ws, thread_id, steps, chance.randrange(1, 4), 1000)
            if chance.random() < 0.2:
                time.sleep(chance.uniform(0, 0.002))

    threads = [threading.Thread(target=fall_behind, args=(each,)) for each in (1, 2)]
    for thread in threads:
        thread.start()
    try:
        end, steps = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            for number, expected in zip((3, 5, 8), wanted, strict=True):
                for position in range(number):
                    begin(ws, IDS[position], number % 2, position, logits=position == number - 1)
                    run_steps(ws, 0, steps, 1, -1)
                    steps += 1
                np.testing.assert_array_equal(ws.logits[0], expected)
    finally:
        ended = True
        for thread in threads:
            thread.join()


def test_a_model_with_more_rows_than_a_phase_can_have_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workspace, "MAX_ROWS_OF_PHASE", 200)
    with pytest.raises(CheckpointError, match="has 256 rows; at most 199"):
        network_of(random_model())
