"""The table of engines says what the result files say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import engines_table  # noqa: E402  # it is no package


@pytest.mark.parametrize("page", engines_table.PAGES)
def test_the_table_of_a_page_is_that_of_the_result_files(page: str) -> None:
    assert engines_table.is_current(page), "run `python benchmarks/engines_table.py`"


def test_the_counts_of_vllm_are_read_as_its_check_writes_them() -> None:
    server = {
        "prompt_ids": "20 of 20",
        "streamed_in_whole_characters": "23 of 23",
        "largest_difference_of_echoed_logprobs": 1.5e-5,
    }
    default = {"eager": {"batch": "20 of 20", "single": "19 of 20"}}
    found = engines_table.of_vllm(
        {"greedy_ids_equal_to_ours": {"default": default}, "server": server}
    )
    assert found == {
        "prompts": 20,
        "prompts_with_our_greedy_ids": 19,
        "lines": 20,
        "lines_with_our_ids": 20,
        "streams": True,
        "logprob_difference": 1.5e-5,
    }


def test_every_engine_that_was_tried_in_float32_has_our_ids() -> None:
    rows = [cells for row in engines_table.ROWS if (cells := engines_table.cells(row, "en"))]
    assert len(rows) >= 5
    for _, _, prompts, lines, *_ in rows:
        for cell in {prompts, lines} - {engines_table.NO}:
            ours, _, of = cell.partition("/")
            assert ours == of
