from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path

import pytest

from gpt_neox_japanese.errors import DataError, OutputError
from gpt_neox_japanese.files import atomic, outputs
from gpt_neox_japanese.tokenization import resumable_output
from gpt_neox_japanese.tokenization.resumable_output import ResumableOutput

NAMES = re.compile("[abc]")


def opened(output: Path, *, resume: bool, setting: int = 1) -> ResumableOutput:
    return ResumableOutput(output, {"held_out": setting}, resume=resume, names=NAMES, last="b")


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


@pytest.mark.parametrize("resume", [False, True])
def test_what_a_living_run_writes_is_taken_by_no_other(tmp_path: Path, resume: bool) -> None:
    interrupted(tmp_path / "out")
    with opened(tmp_path / "out", resume=True) as files:
        with pytest.raises(OutputError, match="another run is writing"):
            opened(tmp_path / "out", resume=resume)
        files.append("b", b"two")
        files.publish()
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_what_came_to_the_output_meanwhile_can_be_moved_away(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    with opened(tmp_path / "out", resume=True) as files:
        (tmp_path / "out").touch()
        with pytest.raises(OutputError, match=r"is whole in .*\.out\.partial"):
            files.publish()
    (tmp_path / "out").unlink()
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


def journal_with(partial: Path, **fields: object) -> None:
    journal = partial / "progress.json"
    value = json.loads(journal.read_text(encoding="utf-8"))
    journal.write_text(json.dumps({**value, **fields}), encoding="utf-8")


@pytest.mark.parametrize(
    "fields",
    [
        {"sizes": {"../victim": 0}},
        {"sizes": {"/tmp/victim": 0}},
        {"sizes": {"": 0}},
        {"sizes": {"..": 0}},
        {"sizes": {"a\0": 0}},
        {"sizes": {"progress.json": 0}},
        {"sizes": {"a": -1}},
        {"sizes": {"a": True}},
        {"sizes": {"a": 10**30}},
        {"sizes": [["a", 0]]},
        {"counts": {"tokens": "3"}},
        {"blocks": 1.5},
        {"blocks": None},
        {"settings": []},
    ],
    ids=str,
)
def test_a_journal_that_no_run_writes_is_refused_and_changes_nothing(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    interrupted(tmp_path / "out")
    partial = tmp_path / ".out.partial"
    (tmp_path / "victim").write_bytes(b"precious")
    journal_with(partial, **fields)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(DataError, match=r"progress\.json.*to start over"):
        opened(tmp_path / "out", resume=True)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("name", ["a", "b", "progress.json"])
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_links_and_pipes_among_unfinished_files_are_refused(
    tmp_path: Path, name: str, kind: str
) -> None:
    interrupted(tmp_path / "out")
    victim, file = tmp_path / "victim", tmp_path / ".out.partial" / name
    victim.write_bytes(b"precious" if name != "progress.json" else file.read_bytes())
    before = victim.read_bytes()
    file.unlink(missing_ok=True)
    {
        "link": lambda: file.symlink_to(victim),
        "hard link": lambda: os.link(victim, file),
        "pipe": lambda: os.mkfifo(file),
    }[kind]()
    with pytest.raises(DataError, match="not written into"):
        opened(tmp_path / "out", resume=True)
    assert victim.read_bytes() == before


def test_a_file_of_an_unknown_name_is_neither_taken_nor_removed(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    (tmp_path / ".out.partial" / "diary.txt").write_bytes(b"precious")
    with pytest.raises(DataError, match=r"diary\.txt is of another name"):
        opened(tmp_path / "out", resume=True)
    assert (tmp_path / ".out.partial" / "diary.txt").read_bytes() == b"precious"


def test_a_directory_that_only_has_such_a_name_is_not_removed(tmp_path: Path) -> None:
    somebodys = tmp_path / ".out.partial" / "diary.txt"
    somebodys.parent.mkdir()
    somebodys.write_bytes(b"precious")
    for resume in (False, True):
        with pytest.raises(OutputError, match="is in the way"):
            opened(tmp_path / "out", resume=resume)
    assert somebodys.read_bytes() == b"precious"


def test_a_link_in_the_place_of_the_unfinished_directory_is_not_followed(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    (tmp_path / ".out.partial").rename(tmp_path / "elsewhere")
    (tmp_path / ".out.partial").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is a link"):
        opened(tmp_path / "out", resume=True)
    assert (tmp_path / "elsewhere" / "a").read_bytes() == b"onelost"


def test_what_a_kill_left_before_the_first_journal_is_begun_anew(tmp_path: Path) -> None:
    outputs.make_partial(tmp_path / ".out.partial", tmp_path / "out")
    (tmp_path / ".out.partial" / "a").write_bytes(b"lost")
    with opened(tmp_path / "out", resume=False) as files:
        files.append("b", b"new")
        files.publish()
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["b"]


def test_a_link_that_waits_for_the_next_journal_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / ".a.json.new").symlink_to(tmp_path / "victim")
    atomic.write_file(tmp_path / "a.json", b"new")
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert (tmp_path / "a.json").read_bytes() == b"new"
