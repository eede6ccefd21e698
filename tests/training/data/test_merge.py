"""Parts of a corpus, put together, are what one process makes, byte for byte."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gpt_neox_japanese.errors import ArgumentError, DataError
from gpt_neox_japanese.tokenization.resumable_output import ResumableOutput
from gpt_neox_japanese.training.data import merge as merge_module
from gpt_neox_japanese.training.data import shard_writer
from gpt_neox_japanese.training.data.merge import merge
from gpt_neox_japanese.training.data.prepare import prepare
from gpt_neox_japanese.training.data.shards import PreparedData
from tests.cli.run import assert_refused, run
from tests.conftest import SENTENCE

HELD_OUT = 0.2


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven files of very different sizes, one of which is empty."""
    folder = tmp_path_factory.mktemp("files")
    for number, documents in enumerate([3, 40, 1, 0, 12, 9, 25]):
        lines = (
            json.dumps({"id": f"{number}-{n}", "text": SENTENCE * (n % 5 + 1)}) + "\n"
            for n in range(documents)
        )
        (folder / f"{number}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def prepare_parts(files: Path, tokenizer: Path, folder: Path, count: int) -> list[Path]:
    parts = [folder / f"part-{index}" for index in range(1, count + 1)]
    for index, part in enumerate(parts, 1):
        prepare([files], tokenizer, part, held_out=HELD_OUT, workers=1, part=(index, count))
    return parts


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


@pytest.fixture(scope="module")
def parts(
    files: Path, tokenizer_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    return prepare_parts(files, tokenizer_directory, tmp_path_factory.mktemp("parts"), 3)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("bytes_per_shard", [1000, 2**28])
def test_merged_parts_are_what_one_process_makes(
    files: Path,
    tokenizer_directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    bytes_per_shard: int,
) -> None:
    monkeypatch.setattr(shard_writer, "_BYTES_PER_SHARD", bytes_per_shard)
    monkeypatch.setattr(merge_module, "_BYTES_AT_ONCE", 300)
    prepare([files], tokenizer_directory, tmp_path / "one", held_out=HELD_OUT, workers=1)
    parts = prepare_parts(files, tokenizer_directory, tmp_path, count)
    manifest = merge(parts[::-1], tmp_path / "merged")
    assert contents(tmp_path / "merged") == contents(tmp_path / "one")
    assert manifest == PreparedData(tmp_path / "merged").manifest
    assert len(manifest.train.shards) > 1 or bytes_per_shard > 1000


@pytest.mark.parametrize("fraction", [None, 0.05])
def test_held_out_files_are_the_same_in_parts(
    files: Path, tokenizer_directory: Path, tmp_path: Path, fraction: float | None
) -> None:
    own = [files / "2.jsonl", files / "4.jsonl"]

    def prepared(output: Path, part: tuple[int, int] | None = None) -> Path:
        options = {"held_out": fraction, "held_out_files": own, "workers": 1, "part": part}
        prepare([files], tokenizer_directory, output, **options)  # type: ignore[arg-type]
        return output

    parts = [prepared(tmp_path / f"{index}", (index, 3)) for index in (1, 2, 3)]
    manifest = merge(parts, tmp_path / "merged")
    assert contents(tmp_path / "merged") == contents(prepared(tmp_path / "one"))
    assert manifest.held_out_sources == ("2.jsonl", "4.jsonl")
    assert manifest.held_out.documents >= 13


def test_parts_are_about_alike_in_size(files: Path, parts: list[Path]) -> None:
    names = [json.loads((p / "part.json").read_text())["manifest"]["sources"] for p in parts]
    assert [name for part in names for name in part] == sorted(
        file.name for file in files.iterdir()
    )
    assert all(names)


def test_a_part_is_not_taken_for_a_whole(parts: list[Path]) -> None:
    with pytest.raises(DataError, match="is not a prepared corpus"):
        PreparedData(parts[0])


def test_a_missing_part_and_a_doubled_one_are_named(
    parts: list[Path], prepared: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"of 3 parts 2 is missing.*--part 2/3"):
        merge([parts[0], parts[2]], tmp_path / "out")
    with pytest.raises(DataError, match="part 1 is there twice"):
        merge([*parts, parts[0]], tmp_path / "out")
    with pytest.raises(DataError, match=r"no part\.json"):
        merge([*parts, prepared], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_parts_of_other_runs_are_refused(
    files: Path, parts: list[Path], tokenizer_directory: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    prepare([files], tokenizer_directory, other, held_out=0.3, workers=1, part=(2, 3))
    with pytest.raises(DataError, match="another held out"):
        merge([parts[0], other, parts[2]], tmp_path / "out")
    four = tmp_path / "four"
    prepare([files], tokenizer_directory, four, held_out=HELD_OUT, workers=1, part=(2, 4))
    with pytest.raises(DataError, match="one of 4 parts"):
        merge([parts[0], four, parts[2]], tmp_path / "out")


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("dtype", "", "says '', but a vocabulary of"),
        ("dtype", "uint32", "says 'uint32', but a vocabulary of"),
        ("vocabulary_size", 5, "another vocabulary size"),
        ("eos_token_id", 0, "another eos token id"),
    ],
)
def test_a_part_that_describes_another_vocabulary_is_refused(
    parts: list[Path], tmp_path: Path, field: str, value: object, problem: str
) -> None:
    shutil.copytree(parts[1], tmp_path / "changed")
    description = json.loads((tmp_path / "changed/part.json").read_text(encoding="utf-8"))
    description["manifest"][field] = value
    (tmp_path / "changed/part.json").write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(DataError, match=problem):
        merge([parts[0], tmp_path / "changed", parts[2]], tmp_path / "merged")


@pytest.mark.parametrize("name", ["train-00000.bin", "held-out.bin", "held-out.jsonl"])
def test_a_part_that_lost_data_is_named(parts: list[Path], tmp_path: Path, name: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(parts[1], broken)
    data = (broken / name).read_bytes()
    (broken / name).write_bytes(data[:-2])
    with pytest.raises(DataError, match=f"{name} should have {len(data)} bytes"):
        merge([parts[0], broken, parts[2]], tmp_path / "out")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"part": "1", "parts": 2, "settings": {}}'])
def test_a_description_that_is_none_is_refused(
    parts: list[Path], tmp_path: Path, text: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(parts[1], broken)
    (broken / "part.json").write_text(text)
    with pytest.raises(DataError, match=r"part\.json"):
        merge([parts[0], broken, parts[2]], tmp_path / "out")


def test_an_interrupted_merge_is_continued(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    with monkeypatch.context() as failing:
        failing.setattr(ResumableOutput, "publish", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            merge(parts, output)
    assert_refused(run("prepare", "--merge", *parts, "--output", output), "--resume")
    monkeypatch.setattr(merge_module.shard_writer, "append", None)  # all was done
    result = run("prepare", "--merge", *parts, "--resume", "--output", output)
    assert result.exit_code == 0, result.output
    monkeypatch.undo()
    merge(parts, tmp_path / "one")
    assert contents(output) == contents(tmp_path / "one")


def test_parts_beyond_the_last_do_not_exist(
    files: Path, tokenizer_directory: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match="part 4 of 3"):
        prepare([files], tokenizer_directory, tmp_path / "out", part=(4, 3))


def test_the_command_makes_parts_and_merges_them(
    files: Path, tokenizer_directory: Path, tmp_path: Path
) -> None:
    outputs = [tmp_path / "1", tmp_path / "2"]
    for index, output in enumerate(outputs, 1):
        options = ("--tokenizer", tokenizer_directory, "--part", f"{index}/2", "--workers", 1)
        result = run("prepare", files, *options, "--output", output)
        assert result.exit_code == 0, result.output
    result = run("prepare", "--merge", *outputs, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("train: ")
    prepare([files], tokenizer_directory, tmp_path / "one", workers=1)
    assert contents(tmp_path / "out") == contents(tmp_path / "one")


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "a/b", "1/0"])
def test_the_command_refuses_what_is_no_part(files: Path, tmp_path: Path, part: str) -> None:
    options = ("--tokenizer", "default", "--part", part, "--output", tmp_path / "out")
    assert_refused(run("prepare", files, *options), "is no part; write 1/8")


@pytest.mark.parametrize(
    "option", [("--held-out", 0.1), ("--tokenizer", "default"), ("--part", "1/2")]
)
def test_merging_takes_no_option_that_says_how_to_read(
    parts: list[Path], tmp_path: Path, option: tuple[object, ...]
) -> None:
    result = run("prepare", "--merge", *parts, *option, "--output", tmp_path / "out")
    assert_refused(result, f"leave out {option[0]}")
