"""Preparing, training and converting under the rules that Windows has for files, on any system.

There, `fsync` takes no file that is only open for reading and no directory can be opened; a file
that is mapped cannot be replaced or removed, but renamed; and `rename` replaces nothing.
"""

from __future__ import annotations

import ast
import dataclasses
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpt_neox_japanese.assets import default_model_directory
from gpt_neox_japanese.files import atomic
from gpt_neox_japanese.files.atomic import write_file
from gpt_neox_japanese.files.tensor_files import read_tensors
from gpt_neox_japanese.quantization.convert import convert
from gpt_neox_japanese.tokenization import resumable_output
from gpt_neox_japanese.training import run
from gpt_neox_japanese.training.data.prepare import prepare
from gpt_neox_japanese.training.settings import Architecture, Settings

SOURCES = Path(atomic.__file__).parents[1]
SETTINGS = Settings(
    sequence_length=16, batch_size=2, steps=2, save_every=1, log_every=1, dtype="fp32"
)
SHAPE = Architecture(16, 1, 2)


class Windows:
    """The rules, and which files somebody has mapped."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._mapped: set[int] = set()
        self._do: dict[str, Callable[..., Any]] = {
            name: getattr(os, name) for name in ("open", "fsync", "rename", "replace", "unlink")
        }
        for name in self._do:
            patch.setattr(os, name, getattr(self, f"_{name}"))
        patch.setattr(shutil, "_use_fd_functions", False)
        patch.setattr(atomic, "sys", SimpleNamespace(platform="win32"))

    def map(self, path: Path) -> None:
        """Let somebody read a file for a long time."""
        self._mapped.add(path.stat().st_ino)

    def _open(self, path: Any, *arguments: Any, **options: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        descriptor: int = self._do["open"](path, *arguments, **options)
        return descriptor

    def _fsync(self, descriptor: Any) -> None:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        if flags & os.O_ACCMODE == os.O_RDONLY or stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EBADF, "Bad file descriptor")
        self._do["fsync"](descriptor)

    def _rename(self, source: Any, target: Any, **_: Any) -> None:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "File exists", str(target))
        self._do["rename"](source, target)

    def _replace(self, source: Any, target: Any, **_: Any) -> None:
        self._refuse_if_mapped(target)
        self._do["replace"](source, target)

    def _unlink(self, path: Any, **options: Any) -> None:
        self._refuse_if_mapped(path)
        self._do["unlink"](path, **options)

    def _refuse_if_mapped(self, path: Any) -> None:
        if os.path.lexists(path) and os.stat(path).st_ino in self._mapped:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Windows:
    return Windows(monkeypatch)


def test_a_corpus_can_be_prepared(
    windows: Windows,
    corpus: Path,
    tokenizer_directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resumable_output, "_SECONDS_BETWEEN_JOURNALS", 0)
    (tmp_path / "there").mkdir()
    for name in ("new", "there"):
        prepare([corpus], tokenizer_directory, tmp_path / name, held_out=0.2, workers=1)
        assert (tmp_path / name / "manifest.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "there"]


def test_a_run_begins_saves_and_continues(windows: Windows, prepared: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert run.train(prepared, output, SETTINGS, SHAPE)
    longer = dataclasses.replace(SETTINGS, steps=4)
    assert run.train(prepared, output, longer, SHAPE, resume=True)
    names = {path.name for path in output.iterdir()}
    assert {"checkpoint-3", "checkpoint-4", "model.safetensors", "report.md"} <= names
    assert not [name for name in names if name.startswith(".")]


def test_a_model_that_somebody_reads_is_replaced_and_removed_later(
    windows: Windows, prepared: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    assert run.train(prepared, output, SETTINGS, SHAPE)
    weights = output / "model.safetensors"
    before = weights.read_bytes()
    longer = dataclasses.replace(SETTINGS, steps=6)
    windows.map(weights)
    assert run.train(prepared, output, longer, SHAPE, resume=True)
    assert weights.read_bytes() != before
    (old,) = output.glob(".*.old")
    assert old.read_bytes() == before  # whoever reads it reads on


def test_an_old_checkpoint_that_somebody_reads_does_not_end_the_run(
    windows: Windows, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(source: Any, target: Any, **_: Any) -> None:
        if "checkpoint-1" in str(source) and str(target).endswith(".old"):
            raise PermissionError(errno.EACCES, "Permission denied", str(source))
        allowed(source, target)

    allowed = os.rename
    monkeypatch.setattr(os, "rename", rename)
    assert run.train(prepared, tmp_path / "run", dataclasses.replace(SETTINGS, steps=4), SHAPE)
    names = {path.name for path in (tmp_path / "run").glob("checkpoint-*")}
    assert names == {"checkpoint-1", "checkpoint-3", "checkpoint-4"}


def test_a_checkpoint_can_be_converted(windows: Windows, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in ("new", "there"):
        convert(default_model_directory(), tmp_path / name, 16, read=read_tensors)
        assert (tmp_path / name / "config.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "there"]


def test_a_file_keeps_its_contents_if_it_can_neither_be_replaced_nor_renamed(
    windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Any, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(source))

    file = tmp_path / "train.json"
    file.write_bytes(b"old")
    windows.map(file)
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(PermissionError):
        write_file(file, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["train.json"]
    assert file.read_bytes() == b"old"


def test_many_readers_of_old_contents_are_no_obstacle(windows: Windows, tmp_path: Path) -> None:
    file = tmp_path / "loss.svg"
    for contents in (b"1", b"2", b"3"):
        write_file(file, contents)
        windows.map(file)
    assert file.read_bytes() == b"3"
    assert sorted(old.read_bytes() for old in tmp_path.glob(".*.old")) == [b"1", b"2"]


def arguments_that_are_missing(call: ast.Call) -> set[str]:
    """What a call that reads or writes text leaves to the system."""
    of_path = isinstance(call.func, ast.Attribute)
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = {keyword.arg for keyword in call.keywords}
    if of_path and name in ("read_text", "write_text"):
        return {"encoding", *(["newline"] * (name == "write_text"))} - given
    modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    if name != "open" or not modes or not set(modes[-1]) <= set("rwxab+t") or "b" in modes[-1]:
        return set()
    return {"encoding", *(["newline"] * ("r" not in modes[-1]))} - given


def test_no_file_is_written_in_the_code_page_or_with_the_line_breaks_of_a_system() -> None:
    missing = {
        f"{file.relative_to(SOURCES)}:{node.lineno}": found
        for file in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and (found := arguments_that_are_missing(node))
    }
    assert missing == {}
    assert len(list(SOURCES.rglob("*.py"))) > 100  # the whole package was looked at
