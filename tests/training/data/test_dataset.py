from __future__ import annotations

import numpy as np
import pytest

from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.training.data.dataset import HeldOutWindows, TrainingWindows
from gpt_neox_japanese.training.data.shards import ShardedTokens


def stream(tokens: int) -> ShardedTokens:
    half = tokens // 2
    return ShardedTokens(
        [np.arange(half, dtype=np.uint16), np.arange(half, tokens, dtype=np.uint16)]
    )


def starts(windows: TrainingWindows | HeldOutWindows, first: int, last: int) -> list[int]:
    return [int(windows[index]["input_ids"][0]) for index in range(first, last)]


def test_a_window_is_consecutive_tokens_and_its_own_labels() -> None:
    window = TrainingWindows(stream(100), window_size=8, num_windows=30, seed=0)[5]
    first = int(window["input_ids"][0])
    assert window["input_ids"].tolist() == list(range(first, first + 8))
    assert window["labels"].tolist() == window["input_ids"].tolist()


def test_an_epoch_visits_disjoint_windows_in_a_shuffled_order() -> None:
    windows = TrainingWindows(stream(1000), window_size=8, num_windows=1000, seed=0)
    n = windows.windows_per_epoch
    epoch = starts(windows, 0, n)
    assert len(set(epoch)) == n == 1000 // 8 - 1
    assert np.diff(sorted(epoch)).tolist() == [8] * (n - 1)
    assert epoch != sorted(epoch)


def test_epochs_differ_in_order_and_offset() -> None:
    windows = TrainingWindows(stream(1000), window_size=8, num_windows=1000, seed=0)
    n = windows.windows_per_epoch
    epochs = [starts(windows, n * epoch, n * (epoch + 1)) for epoch in range(4)]
    assert len({min(epoch) for epoch in epochs}) > 1
    assert len({tuple(np.argsort(epoch).tolist()) for epoch in epochs}) == 4


def test_the_order_depends_on_the_seed_and_not_on_the_length_of_the_run() -> None:
    short = TrainingWindows(stream(500), window_size=8, num_windows=50, seed=1)
    long = TrainingWindows(stream(500), window_size=8, num_windows=5000, seed=1)
    other = TrainingWindows(stream(500), window_size=8, num_windows=50, seed=2)
    assert starts(short, 0, 50) == starts(long, 0, 50)
    assert starts(short, 0, 50) != starts(other, 0, 50)


def test_windows_can_be_asked_for_in_any_order() -> None:
    there, back = (
        TrainingWindows(stream(100), window_size=8, num_windows=40, seed=0) for _ in range(2)
    )
    assert starts(there, 0, 40) == [int(back[i]["input_ids"][0]) for i in range(39, -1, -1)][::-1]


def test_a_corpus_of_exactly_one_window_is_enough() -> None:
    windows = TrainingWindows(stream(8), window_size=8, num_windows=3, seed=0)
    assert starts(windows, 0, 3) == [0, 0, 0]
    with pytest.raises(DataError, match="7 training tokens do not fill a window of 8"):
        TrainingWindows(stream(7), window_size=8, num_windows=3, seed=0)


def test_held_out_windows_predict_every_token_once() -> None:
    windows = HeldOutWindows(stream(29), window_size=8, max_tokens=1000)
    predicted = [t for i in range(len(windows)) for t in windows[i]["input_ids"][1:].tolist()]
    assert predicted == list(range(1, 29))


def test_few_held_out_windows_are_spread_over_the_text() -> None:
    windows = HeldOutWindows(stream(700), window_size=8, max_tokens=40)
    assert len(windows) == 5
    assert starts(windows, 0, 5) == [0, 133, 266, 399, 532]


def test_a_held_out_part_shorter_than_a_window_gives_none() -> None:
    assert len(HeldOutWindows(stream(7), window_size=8, max_tokens=100)) == 0
