"""Calibration texts: what a model writes itself, or the beginning of what the user gives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.inference import calibration_text
from gpt_neox_japanese.inference.calibration_text import (
    NUM_TOKENS,
    windows_of_own_text,
    windows_of_texts,
)
from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint

TEXT = "吾輩は猫である。名前はまだ無い。どこで生れたか頓と見当がつかぬ。\n" * 150


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return Checkpoint.open()


def test_a_models_own_text_is_text_and_always_the_same(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration_text, "NUM_TOKENS", 3 * 512)
    windows = windows_of_own_text(checkpoint)
    assert windows.shape == (3, 512)
    assert windows.dtype == np.int64
    assert (windows[:, 0] == checkpoint.codec.eot_token).all()
    assert len({tuple(window) for window in windows.tolist()}) == 3
    assert "。" in checkpoint.codec.decode(windows[0].tolist())
    np.testing.assert_array_equal(windows_of_own_text(checkpoint), windows)


def test_texts_are_read_until_there_are_enough_tokens(checkpoint: Checkpoint) -> None:
    read = 0

    def texts() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield TEXT

    windows = windows_of_texts(checkpoint, texts())
    assert windows.shape == (NUM_TOKENS // 512, 512)
    ids = [checkpoint.codec.eot_token, *checkpoint.codec.encode(TEXT)]
    assert read == -(-NUM_TOKENS // len(ids))
    assert windows.reshape(-1).tolist() == (ids * read)[: windows.size]


def test_a_little_less_text_makes_fewer_windows(checkpoint: Checkpoint) -> None:
    windows = windows_of_texts(checkpoint, [TEXT] * 2)
    assert windows.shape[1] == 512
    assert 9 <= len(windows) < NUM_TOKENS // 512


@pytest.mark.parametrize("texts", [[], [""], ["短い。"], [TEXT[:1000]] * 3])
def test_too_little_text_is_refused(checkpoint: Checkpoint, texts: list[str]) -> None:
    with pytest.raises(DataError, match="at least 4,608 are needed"):
        windows_of_texts(checkpoint, texts)
