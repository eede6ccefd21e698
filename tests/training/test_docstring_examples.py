"""The examples that stand in docstrings of training and tokenising."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "tokenization.resumable_output",
        "training.checkpoints.manager",
        "training.data.dataset",
        "training.data.shards",
        "training.optim.optimizer",
    ],
)
def test_every_example_shows_what_happens(name: str) -> None:
    failed, attempted = doctest.testmod(importlib.import_module(f"gpt_neox_japanese.{name}"))
    assert attempted > 0
    assert failed == 0
