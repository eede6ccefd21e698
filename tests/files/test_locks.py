from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from gpt_neox_japanese.files import locks
from gpt_neox_japanese.files.locks import locked_file

_ON_UNIX = pytest.mark.skipif(os.name == "nt", reason="nothing that is open can be removed there")


def test_one_has_the_lock_and_the_file_is_gone_afterwards(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    with locked_file(file) as first:
        with locked_file(file) as second:
            assert (first, second) == (True, False)
        assert file.exists()
    assert not file.exists()
    file.touch()  # as after a kill
    with locked_file(file) as later:
        assert later


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_where_the_file_system_has_no_locks_nobody_is_kept_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locks, "_lock", refuse)
    file = tmp_path / ".lock"
    with locked_file(file) as first, locked_file(file) as second:
        assert first
        assert second
    assert not file.exists()


@_ON_UNIX
@pytest.mark.parametrize("comes_a_third", [False, True])
def test_the_lock_of_a_file_that_was_removed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes_a_third: bool
) -> None:
    lock = locks._lock

    def lock_late(descriptor: int) -> None:
        file.unlink()
        if comes_a_third:
            file.touch()
        lock(descriptor)

    file = tmp_path / ".lock"
    monkeypatch.setattr(locks, "_lock", lock_late)
    with locked_file(file) as is_mine:
        assert not is_mine
    assert file.exists() == comes_a_third


@_ON_UNIX
def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "letter")
    with pytest.raises(OSError, match="symbolic links"), locked_file(tmp_path / ".lock"):
        pytest.fail("it was followed")
    assert not (tmp_path / "letter").exists()
