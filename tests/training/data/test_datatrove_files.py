"""Tokens of datatrove, honest and hostile."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.training.data.datatrove_files import datatrove_files, open_datatrove
from gpt_neox_japanese.training.data.run_data import open_data
from tests.documented import ROOT, blocks

EOS = 9
DOCUMENTS = [[1, 2, 3, EOS], [4, EOS], [5, 6, 7, 8, EOS]]


def write(folder: Path, rank: int, documents: list[list[int]], dtype: str = "<u2") -> Path:
    file = folder / f"{rank:05d}_unshuffled.ds"
    np.array([i for d in documents for i in d], dtype).tofile(file)
    np.cumsum([len(d) for d in documents], dtype="<u8").tofile(f"{file}.index")
    return file


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_tokens_are_read_in_the_order_of_the_tasks(tmp_path: Path, dtype: str) -> None:
    write(tmp_path, 1, DOCUMENTS[1:], dtype)
    write(tmp_path, 0, DOCUMENTS[:1], dtype)
    write(tmp_path, 2, [], dtype)
    tokens = open_datatrove(datatrove_files(tmp_path), 10, EOS)
    assert tokens.read(0, len(tokens)).tolist() == [i for d in DOCUMENTS for i in d]
    assert datatrove_files(tmp_path / "00001_unshuffled.ds") == datatrove_files(tmp_path)[1:2]


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    file = write(tmp_path, 0, DOCUMENTS)
    index = Path(f"{file}.index")
    good = index.read_bytes()
    for broken, said in (
        (good[:-1], "no index of datatrove"),
        (good + (3).to_bytes(8, "little"), "end before they begin"),
        (good + (12).to_bytes(8, "little"), "tells 12 tokens"),
        (good[:-8], "tells 6 tokens"),
        (b"", "tells 0 tokens"),
        ((2).to_bytes(8, "little") + good[8:], "do not end with the end-of-text id 9"),
    ):
        index.write_bytes(broken)
        with pytest.raises(DataError, match=said):
            open_datatrove([file], 10, EOS)
    index.unlink()
    with pytest.raises(DataError, match="save_index=True"):
        open_datatrove([file], 10, EOS)


def test_no_tokens_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no tokens"):
        open_datatrove([write(tmp_path, 0, [])], 10, EOS)


def test_an_id_beyond_the_vocabulary_is_refused(tmp_path: Path) -> None:
    tokens = open_datatrove([write(tmp_path, 0, DOCUMENTS)], 8, EOS)
    with pytest.raises(DataError, match="ids 0 to 7"):
        tokens.read(0, len(tokens))


def test_a_run_opens_them_with_the_vocabulary_that_is_named(
    tmp_path: Path, tokenizer_directory: Path
) -> None:
    with pytest.raises(DataError, match="name one with --tokenizer"):
        open_data(write(tmp_path, 0, DOCUMENTS), None)
    from gpt_neox_japanese.tokenizer.codec import END_OF_TEXT, Codec

    end = Codec.load(tokenizer_directory).token_to_id(END_OF_TEXT)
    assert end is not None
    write(tmp_path, 0, [[1, 2, end]])
    held_out = tmp_path / "held-out"
    held_out.mkdir()
    data = open_data(tmp_path, tokenizer_directory, write(held_out, 0, [[3, end]]))
    assert data.train.read(0, 3).tolist() == [1, 2, end]
    assert data.held_out.read(0, 2).tolist() == [3, end]


def test_files_of_dolma_are_read_after_what_the_guide_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "dolma"
    folder.mkdir()
    written = np.memmap(folder / "part-0-00000.npy", "<u2", "w+", shape=(11,))
    written[:] = [i for d in DOCUMENTS for i in d]
    written.flush()
    with gzip.open(folder / "part-0-00000.csv.gz", "wt") as table:
        ends = np.cumsum([len(d) for d in DOCUMENTS])
        rows = zip((0, *ends), ends, strict=False)
        csv.writer(table).writerows(
            (*row, f"id{n}", "a, b.jsonl.gz", n) for n, row in enumerate(rows)
        )
    [code] = [x for x in blocks(ROOT / "docs/guide/large-corpora.md", "python") if "dolma" in x]
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    tokens = open_datatrove(datatrove_files(folder), 10, EOS)
    assert tokens.read(0, len(tokens)).tolist() == [i for d in DOCUMENTS for i in d]
