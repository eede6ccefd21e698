"""Work shared out to threads."""

import threading

import pytest

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
