from __future__ import annotations

import itertools

import numpy as np
import pytest

from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.training.data.dataset import (
    IGNORED,
    HeldOutWindows,
    TrainingWindows,
    collate,
)
from gpt_neox_japanese.training.data.shards import ShardedTokens


def stream(tokens: int) -> ShardedTokens:
    half = tokens // 2
    return ShardedTokens(
        [np.arange(half, dtype=np.uint16), np.arange(half, tokens, dtype=np.uint16)]
    )


def starts(windows: TrainingWindows, first: int, last: int) -> list[int]:
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


EOS = 1


def held_out(*lengths: int) -> ShardedTokens:
    """Documents of so many different tokens each."""
    ids = itertools.count(EOS + 1)
    documents = [[*itertools.islice(ids, length), EOS] for length in lengths]
    return ShardedTokens([np.array(document, np.uint16) for document in documents])


def test_an_epoch_that_is_shorter_than_a_window_is_one_short_window() -> None:
    windows = TrainingWindows(lambda n: ShardedTokens([np.arange(100 - 3 * n)]), 99, 3, seed=0)
    assert [len(windows[index]["input_ids"]) for index in range(3)] == [99, 97, 94]
    labels = collate([windows[0], windows[1]])["labels"]
    assert labels[1, -3:].tolist() == [96, -100, -100]


@pytest.mark.parametrize("window", [2, 3, 8, 100])
def test_held_out_windows_predict_every_token_once(window: int) -> None:
    stream = held_out(29, 0, 8, 7, 1, 9)
    windows = HeldOutWindows(stream, EOS, window, max_tokens=1000)
    predicted = [
        token
        for index in range(len(windows))
        for token in windows[index]["shift_labels"].tolist()
        if token != IGNORED
    ]
    assert predicted == stream.read(0, len(stream)).tolist()
    assert windows.num_tokens == len(stream)


def test_a_held_out_window_begins_with_the_end_of_another_text_or_knows_half_a_window() -> None:
    windows = HeldOutWindows(held_out(10, 2), EOS, 4, max_tokens=1000)
    shown = [
        (windows[i]["input_ids"].tolist(), windows[i]["shift_labels"].tolist()) for i in (0, 1)
    ]
    assert shown == [([1, 2, 3, 4], [2, 3, 4, 5]), ([3, 4, 5, 6], [-100, -100, 6, 7])]
    assert windows[len(windows) - 1]["input_ids"].tolist() == [1, 12, 13]


def test_few_held_out_windows_are_spread_over_the_text() -> None:
    windows = HeldOutWindows(held_out(700), EOS, 8, max_tokens=40)
    found = [int(windows[index]["input_ids"][0]) for index in range(len(windows))]
    assert len(windows) == 10
    assert found[0] == EOS
    assert np.diff(found[1:]).min() > 50
    assert 40 <= windows.num_tokens < 50


def test_no_held_out_text_gives_no_windows() -> None:
    assert len(HeldOutWindows(ShardedTokens([]), EOS, 8, max_tokens=100)) == 0


def test_a_batch_is_padded_at_the_end_with_what_is_not_predicted() -> None:
    windows = HeldOutWindows(held_out(3, 1), EOS, 8, max_tokens=100)
    batch = collate([windows[0], windows[1]])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4], [1, 5, 0, 0]]
    assert batch["shift_labels"].tolist() == [[2, 3, 4, 1], [5, 1, -100, -100]]
