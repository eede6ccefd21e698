"""Every command takes the same places for `--output`, and says what is wrong with others."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from gpt_neox_japanese.assets import default_model_directory
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.training.data.prepare import prepare
from tests.cli.run import run
from tests.tokenizer.small import vocabulary

Command = Callable[[object], Result]

SMALL = ("--hidden-size", 16, "--layers", 1, "--heads", 2, "--sequence-length", 16, "--steps", 1)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, a vocabulary and prepared data."""
    directory = tmp_path_factory.mktemp("material")
    Codec(vocabulary(["猫", "犬"])).save(directory / "tokenizer")
    (directory / "a.txt").write_text("猫犬犬" * 100, encoding="utf-8")
    prepare([directory / "a.txt"], directory / "tokenizer", directory / "data", workers=1)
    return directory


@pytest.fixture(params=["prepare", "tokenize", "convert", "train"])
def command(request: pytest.FixtureRequest, material: Path) -> Command:
    """A command that makes a directory, as a function of its `--output`."""
    before = {
        "prepare": ("prepare", material / "a.txt", "--tokenizer", material / "tokenizer"),
        "tokenize": ("tokenize", material / "a.txt", "--tokenizer", material / "tokenizer"),
        "convert": ("convert", default_model_directory(), "--to", "bf16"),
        "train": ("train", "--data", material / "data", *SMALL),
    }[request.param]
    return lambda output: run(*before, "--output", output)


COMPLETE = {"manifest.json", "config.json"}


def assert_complete(directory: Path) -> None:
    names = {file.name for file in directory.iterdir()}
    assert names & COMPLETE
    assert not [name for name in names if name.startswith(".")]


def assert_refused(result: Result, said: str) -> None:
    assert result.exit_code == 2, result.output
    last = result.stderr.splitlines()[-1]
    assert last.startswith("neox-ja: --output ")
    assert said in last


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, empty."""
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def test_the_working_directory_is_filled_if_it_is_empty(command: Command, place: Path) -> None:
    there = place.stat().st_ino
    result = command(".")
    assert result.exit_code == 0, result.output
    assert_complete(place)
    assert place.stat().st_ino == there  # a shell stays in it
    assert [file.name for file in place.parent.iterdir()] == ["place"]
    assert_refused(command("."), "exists and is not empty")


@pytest.mark.parametrize(
    "output", ["made", "made/", "more/than/one", "../place/made", "gone/../made"]
)
def test_a_directory_that_does_not_exist_is_made(
    command: Command, place: Path, output: str
) -> None:
    result = command(output)
    assert result.exit_code == 0, result.output
    assert_complete(Path(os.path.normpath(place / output)))


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_leads_to_the_directory_that_it_names(
    command: Command, place: Path, tmp_path: Path, exists: bool
) -> None:
    drive = tmp_path / "drive"
    if exists:
        drive.mkdir()
    Path("link").symlink_to(drive)
    result = command("link")
    assert result.exit_code == 0, result.output
    assert Path("link").is_symlink()
    assert_complete(drive)


@pytest.mark.parametrize("output", ["..", "/", "full", "full/"])
def test_a_directory_that_is_not_empty_is_refused(
    command: Command, place: Path, output: str
) -> None:
    Path("full").mkdir()
    Path("full/precious").write_text("mine", encoding="utf-8")
    assert_refused(command(output), "exists and is not empty")
    assert Path("full/precious").read_text(encoding="utf-8") == "mine"
    assert [file.name for file in place.iterdir()] == ["full"]


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("file", "exists and is a file"),
        ("file/below", "file is no directory"),
        ("file/below/more", "file is no directory"),
    ],
)
def test_a_file_is_refused(command: Command, place: Path, output: str, said: str) -> None:
    Path("file").write_text("mine", encoding="utf-8")
    assert_refused(command(output), said)
    assert Path("file").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("output", ["locked", "locked/new", "locked/new/more"])
def test_a_place_that_may_not_be_written_is_refused(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    Path("locked").mkdir()

    def access(path: object, mode: int) -> bool:
        return not (mode & os.W_OK and Path(str(path)).name == "locked")

    monkeypatch.setattr(os, "access", access)  # root, who may run a test, may write anywhere
    assert_refused(command(output), "may not be written into")
    assert not list(Path("locked").iterdir())


def test_a_file_of_ids_takes_the_place_of_nothing(material: Path, place: Path) -> None:
    tokenize = ("tokenize", material / "a.txt", "--tokenizer", material / "tokenizer", "--output")
    Path("a.jsonl").mkdir()
    assert_refused(run(*tokenize, "a.jsonl"), "exists and is a directory")
    Path("b.jsonl").write_text("mine", encoding="utf-8")
    assert_refused(run(*tokenize, "b.jsonl"), "exists and is a file")
    assert_refused(run(*tokenize, "b.jsonl/c.jsonl"), "b.jsonl is no directory")
    assert run(*tokenize, "c/d.jsonl").exit_code == 0
    assert [file.name for file in Path("c").iterdir()] == ["d.jsonl"]


@pytest.mark.parametrize(
    ("output", "said"), [("file/below", "file is no directory"), ("locked/new", "may not be")]
)
def test_a_vocabulary_is_not_built_where_it_cannot_be_written(
    material: Path, place: Path, monkeypatch: pytest.MonkeyPatch, output: str, said: str
) -> None:
    Path("file").touch()
    Path("locked").mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "locked")
    result = run("vocab", "build", material / "a.txt", "--size", 9000, "--output", output)
    assert_refused(result, said)
    assert "B/s" not in result.stderr  # before anything is read
