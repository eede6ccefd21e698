"""Work of the tokenizer, cut up for threads."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gpt_neox_japanese.tokenizer.encoding.batching import map_in_threads

TASKS = [slice(i, i + 1) for i in range(20)]

_AFTER_MAIN = """
import threading
from gpt_neox_japanese.tokenizer.encoding.batching import map_in_threads

def ask():
    threading.main_thread().join()
    print(map_in_threads(lambda task: task.start, [slice(i, i + 1) for i in range(4)], 2))

threading.Thread(target=ask).start()
"""


@pytest.mark.parametrize("num_threads", [None, 1, 2, 30])
def test_results_are_in_the_order_of_the_tasks(num_threads: int | None) -> None:
    assert map_in_threads(lambda task: task.start, TASKS, num_threads) == list(range(20))


def test_an_error_of_a_task_comes_out() -> None:
    def work(task: slice) -> None:
        raise RuntimeError(f"task {task.start}")

    with pytest.raises(RuntimeError, match="task 0"):
        map_in_threads(work, TASKS, 2)


def test_threads_that_outlive_the_main_thread_can_encode() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _AFTER_MAIN], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "[0, 1, 2, 3]\n"
