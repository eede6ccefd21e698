from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.tokenization import resumable_output
from gpt_neox_japanese.tokenization.resumable_output import ResumableOutput


def opened(output: Path, *, resume: bool, setting: int = 1) -> ResumableOutput:
    return ResumableOutput(output, {"held_out": setting}, resume=resume, last="b")


class KilledError(Exception):
    """Stands for whatever ends a run."""


def interrupted(output: Path) -> None:
    """One whole block in `a`, and half of a second one in `a` and `b`."""
    with suppress(KilledError), opened(output, resume=False) as files:
        files.append("a", b"one")
        files.end_block({"tokens": 3})
        files.append("a", b"lost")
        files.append("b", b"lost")
        raise KilledError


def finished(output: Path) -> None:
    with opened(output, resume=True) as files:
        assert (files.blocks, files.counts["tokens"]) == (1, 3)
        files.append("a", b"two")
        files.append("b", b"two")
        files.end_block({"tokens": 3})
        files.publish()


def test_a_continued_run_has_nothing_of_the_block_that_was_cut_off(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    finished(tmp_path / "out")
    found = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert found == {"a": b"onetwo", "b": b"two"}


def test_nothing_is_at_its_place_before_it_is_complete(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == [".out.partial"]


def test_a_run_with_other_settings_or_without_resume_is_refused(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    with pytest.raises(DataError, match="continue it with --resume"):
        opened(tmp_path / "out", resume=False)
    with pytest.raises(DataError, match="had another held out"):
        opened(tmp_path / "out", resume=True, setting=2)
    finished(tmp_path / "out")


def test_a_file_that_has_lost_data_is_refused(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    (tmp_path / ".out.partial" / "a").write_bytes(b"o")
    with pytest.raises(DataError, match="has lost data"):
        opened(tmp_path / "out", resume=True)


def test_a_full_disk_leaves_the_journal_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    interrupted(tmp_path / "out")
    journal = tmp_path / ".out.partial" / "progress.json"
    before = journal.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(resumable_output, "_SECONDS_BETWEEN_JOURNALS", 0)
        patch.setattr("gpt_neox_japanese.files.atomic.os.fsync", full)
        with opened(tmp_path / "out", resume=True) as files:
            files.append("a", b"two")
            with pytest.raises(OSError, match="No space"):
                files.end_block({"tokens": 3})
    assert journal.read_bytes() == before
    finished(tmp_path / "out")
