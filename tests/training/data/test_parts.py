"""Which files of a corpus stand in which part."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt_neox_japanese.training.data.parts import files_of_part


@pytest.mark.parametrize("sizes", [[0, 5, 3, 0, 0], [0, 0], [7], [0, 1, 0]])
@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_every_file_is_in_one_part_empty_ones_too(
    tmp_path: Path, sizes: list[int], count: int
) -> None:
    files = [tmp_path / str(number) for number in range(len(sizes))]
    for file, size in zip(files, sizes, strict=True):
        file.write_bytes(b"x" * size)
    parts = [files_of_part(files, index, count) for index in range(1, count + 1)]
    assert [file for part in parts for file in part] == files
