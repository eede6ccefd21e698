"""Work shared out to threads."""

import subprocess
import sys
import threading
from typing import Any

import pytest

from gpt_neox_japanese.kernels import parallel_for as module
from gpt_neox_japanese.kernels.parallel_for import parallel_for


@pytest.mark.parametrize("count", [0, 1, 5, 64, 1000])
@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("multiple", [1, 32])
def test_shares_cover_everything_once(count: int, threads: int, multiple: int) -> None:
    shares: list[tuple[int, int]] = []
    parallel_for(
        lambda first, last: shares.append((first, last)), count, threads, multiple=multiple
    )
    assert sorted(i for share in shares for i in range(*share)) == list(range(count))
    assert len(shares) <= threads
    assert all(first % multiple == 0 for first, _ in shares)


def test_the_caller_takes_part() -> None:
    names: list[int] = []
    parallel_for(lambda *_: names.append(threading.get_ident()), 2, 2)
    assert threading.get_ident() in names
    assert len(set(names)) == 2


@pytest.mark.parametrize("bad", [0, 1])
def test_an_error_comes_out_when_all_have_ended(bad: int) -> None:
    ended: list[int] = []

    def work(first: int, _: int) -> None:
        if first == bad:
            raise ValueError(f"share {first}")
        ended.append(first)

    with pytest.raises(ValueError, match=f"share {bad}"):
        parallel_for(work, 3, 3)
    assert len(ended) == 2


_AFTER_MAIN = """
import threading
from gpt_neox_japanese.kernels.parallel_for import parallel_for

def ask():
    threading.main_thread().join()
    parallel_for(lambda *share: shares.append(share), 4, 2)
    print(sorted(shares))

shares = []
parallel_for(lambda *share: shares.append(share), 4, 2)
threading.Thread(target=ask).start()
"""


def test_threads_are_helped_when_the_main_thread_has_ended() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _AFTER_MAIN], check=True, capture_output=True, text=True
    )
    assert done.stdout == "[(0, 2), (0, 2), (2, 4), (2, 4)]\n", done.stderr


def test_without_threads_the_caller_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def start_one(thread: threading.Thread) -> Any:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    module._queue_of_helpers.cache_clear()
    monkeypatch.setattr(threading.Thread, "start", start_one)
    shares: list[tuple[int, int]] = []
    parallel_for(lambda *share: shares.append(share), 9, 3)
    assert shares == [(0, 9)]
    started[0].join()  # it waits for nothing any more
