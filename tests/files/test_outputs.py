from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_neox_japanese.errors import OutputError
from gpt_neox_japanese.files.outputs import (
    check_output,
    check_writable,
    growing,
    make_partial,
    partial_directory,
    publish,
    publish_file,
)


def test_what_is_there_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(OutputError, match="is a file; take another"):
        check_output(tmp_path / "file", "take another")
    with pytest.raises(OutputError, match="is not empty; choose another or remove it"):
        check_output(tmp_path / "full")
    with pytest.raises(OutputError, match="is no directory"):
        check_output(tmp_path / "file" / "below")
    check_output(tmp_path / "new" / "below")
    assert sorted(os.listdir(tmp_path)) == ["file", "full"]


def test_what_an_interrupted_run_left_inside_is_no_obstacle_to_it(tmp_path: Path) -> None:
    partial = partial_directory(tmp_path, "partial")
    assert partial == tmp_path / ".partial"
    make_partial(partial, tmp_path)
    check_output(tmp_path, partial=partial)
    with pytest.raises(OutputError, match="not empty"):
        check_output(tmp_path)


def test_a_lock_that_a_killed_run_left_is_no_obstacle_to_other_work(tmp_path: Path) -> None:
    (tmp_path / ".partial.lock").touch()
    check_output(tmp_path)
    check_output(tmp_path, partial=partial_directory(tmp_path, "converted"))


def test_a_directory_that_cannot_be_read_or_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refuse)
        with pytest.raises(OutputError, match=r"cannot be read: Permission denied"):
            check_output(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        with pytest.raises(OutputError, match="may not be written into"):
            check_writable(tmp_path / "new")


@pytest.mark.parametrize(
    ("code", "expected"),
    [(errno.ENOSPC, OSError), (errno.EDQUOT, OSError), (errno.EROFS, OutputError)],
)
def test_a_full_disk_is_no_mistake_of_the_caller_and_a_place_without_rights_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, expected: type[Exception]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(expected) as caught:
        make_partial(tmp_path / ".out.partial", tmp_path / "out")
    assert type(caught.value) is expected
    assert os.strerror(code) in str(caught.value)


def test_a_result_grows_beside_its_place_and_is_whole_there(tmp_path: Path) -> None:
    output = tmp_path / "data"
    partial = partial_directory(output, "partial")
    assert partial == tmp_path / ".data.partial"
    make_partial(partial, output)
    (partial / "ids.bin").write_bytes(b"12")
    assert not output.exists()
    publish(partial, output, last="ids.bin")
    assert (output / "ids.bin").read_bytes() == b"12"
    assert os.listdir(tmp_path) == ["data"]


def test_the_last_file_of_a_result_tells_that_the_others_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[str] = []
    rename = Path.rename

    def note(self: Path, place: Path) -> Path:
        moved.append(self.name)
        return rename(self, place)

    partial = partial_directory(tmp_path, "partial")
    make_partial(partial, tmp_path)
    for name in ("config.json", "a.bin", "z.bin"):
        (partial / name).touch()
    monkeypatch.setattr(Path, "rename", note)
    publish(partial, tmp_path, last="config.json")
    assert moved == ["a.bin", "z.bin", "config.json"]
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "config.json", "z.bin"]


def test_a_file_goes_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "made").write_bytes(b"12")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    publish_file(tmp_path / "made", tmp_path / "link")
    assert (tmp_path / "elsewhere").read_bytes() == b"12"
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_nothing_of_a_result(
    tmp_path: Path, error: BaseException
) -> None:
    output = tmp_path / "model"
    partial = partial_directory(output, "converted")

    def fail() -> None:
        with growing(partial, output, "config.json"):
            (partial / "config.json").touch()
            raise error

    with pytest.raises(type(error)):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_file_grows_in_a_directory_that_is_gone_afterwards(tmp_path: Path) -> None:
    output = tmp_path / "model.gguf"
    partial = partial_directory(output, "converted")
    with growing(partial, output, "file", is_file=True):
        (partial / "file").write_text("whole", encoding="utf-8")
        assert not output.exists()
    assert output.read_text(encoding="utf-8") == "whole"
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("name", ["user", "user.gguf"])
def test_what_somebody_keeps_under_the_name_of_a_growing_result_stays(
    tmp_path: Path, name: str
) -> None:
    output = tmp_path / name
    partial = partial_directory(output, "converted")
    partial.mkdir()
    (partial / "letter").write_text("keep", encoding="utf-8")
    with (
        pytest.raises(OutputError, match="in the way"),
        growing(partial, output, "file", is_file="." in name),
    ):
        pytest.fail("it was begun")
    assert (partial / "letter").read_text(encoding="utf-8") == "keep"


def test_of_two_runs_with_one_output_the_second_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "model"
    partial = partial_directory(output, "converted")
    with growing(partial, output, "config.json"):
        (partial / "config.json").write_text("first", encoding="utf-8")
        with (
            pytest.raises(OutputError, match="another run is writing"),
            growing(partial, output, "config.json"),
        ):
            pytest.fail("it was begun")
    assert (output / "config.json").read_text(encoding="utf-8") == "first"
    assert list(tmp_path.iterdir()) == [output]


KILLED = """
import os, sys
from pathlib import Path
from gpt_neox_japanese.files.outputs import growing, partial_directory
output = Path(sys.argv[1])
with growing(partial_directory(output, "converted"), output, "config.json"):
    os._exit(9)
"""


@pytest.mark.parametrize("is_there", [False, True])
def test_what_a_killed_run_left_is_no_obstacle(tmp_path: Path, is_there: bool) -> None:
    output = tmp_path / "model"
    if is_there:
        output.mkdir()
    killed = subprocess.run([sys.executable, "-c", KILLED, str(output)], check=False)
    assert killed.returncode == 9
    assert len(list((output if is_there else tmp_path).iterdir())) == 2
    partial = partial_directory(output, "converted")
    check_output(output, partial=partial)
    with growing(partial, output, "config.json"):
        (partial / "config.json").touch()
    assert list(tmp_path.rglob("*")) == [output, output / "config.json"]


@pytest.mark.parametrize("is_there", [False, True])
def test_what_comes_to_the_directory_meanwhile_is_kept_and_so_is_the_result(
    tmp_path: Path, is_there: bool
) -> None:
    output = tmp_path / "model"
    if is_there:
        output.mkdir()
    partial = partial_directory(output, "converted")

    def write() -> None:
        with growing(partial, output, "file"):
            (partial / "file").write_text("result", encoding="utf-8")
            output.mkdir(exist_ok=True)
            (output / "file").write_text("keep", encoding="utf-8")

    with pytest.raises(OutputError) as refusal:
        write()
    assert f"{output / 'file'} came" in str(refusal.value)
    assert f"is whole in {partial}" in str(refusal.value)
    with pytest.raises(OutputError, match="in the way"):
        write()
    assert (output / "file").read_text(encoding="utf-8") == "keep"
    assert {file.name: file.read_text(encoding="utf-8") for file in partial.iterdir()} == {
        "file": "result"
    }


@pytest.mark.parametrize("has_links", [False, True])
def test_what_comes_in_the_place_of_a_file_meanwhile_is_kept_and_so_is_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    output = tmp_path / "model.gguf"
    partial = partial_directory(output, "converted")

    def write() -> None:
        with growing(partial, output, "file", is_file=True):
            (partial / "file").write_text("result", encoding="utf-8")
            output.write_text("keep", encoding="utf-8")

    with pytest.raises(OutputError) as refusal:
        write()
    assert f"{output} came" in str(refusal.value)
    assert f"is whole in {partial / 'file'}" in str(refusal.value)
    assert output.read_text(encoding="utf-8") == "keep"
    assert (partial / "file").read_text(encoding="utf-8") == "result"


def test_a_directory_that_was_there_may_get_other_files_meanwhile(tmp_path: Path) -> None:
    partial = partial_directory(tmp_path, "converted")
    with growing(partial, tmp_path, "file"):
        (partial / "file").touch()
        (tmp_path / ".DS_Store").touch()
    assert sorted(os.listdir(tmp_path)) == [".DS_Store", "file"]
