from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpt_neox_japanese.corpus import Document, Layout, read_blocks, read_documents
from gpt_neox_japanese.errors import CorpusError


def write_parquet(path: Path, columns: dict[str, list[Any]], rows_per_group: int) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(columns), path, row_group_size=rows_per_group)
    return path


def test_a_parquet_row_is_a_document(tmp_path: Path) -> None:
    texts = [f"{n}猫" for n in range(25)]
    file = write_parquet(tmp_path / "a.parquet", {"id": [*range(25)], "text": texts}, 10)
    cut = list(read_blocks([file], Layout()))
    assert [len(block.parts) for block in cut] == [3]
    assert sum(block.size for block in cut) == file.stat().st_size
    found = list(read_documents([file]))
    assert [(d.id, d.text, d.line) for d in found] == [
        (str(n), text, n + 1) for n, text in enumerate(texts)
    ]
    (tmp_path / "b").mkdir()
    unnamed = write_parquet(tmp_path / "b" / "b.parquet", {"text": ["猫"]}, 1)
    assert [d.id for d in read_documents([unnamed])] == ["b.parquet:1"]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"body": ["猫"]}, r"a\.parquet has no column 'text', only body"),
        ({"text": [1]}, r"column 'text' holds int64, expected string"),
        ({"text": ["猫", None]}, r"a\.parquet, row 2: 'text' is null"),
    ],
)
def test_a_broken_parquet_file_or_row_is_named(
    tmp_path: Path, columns: dict[str, list[Any]], problem: str
) -> None:
    file = write_parquet(tmp_path / "a.parquet", columns, 10)
    with pytest.raises(CorpusError, match=problem):
        list(read_documents([file]))


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for data in (b"", b"plain text"):
        (tmp_path / "a.parquet").write_bytes(data)
        with pytest.raises(CorpusError, match=r"a\.parquet cannot be read"):
            list(read_documents([tmp_path]))


def test_a_parquet_row_whose_id_cannot_be_read_is_an_error_in_its_place(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    raw = pyarrow.array([b"a", b"\xff", b"c"], pyarrow.binary())
    ids = pyarrow.Array.from_buffers(pyarrow.string(), 3, raw.buffers())
    dates = pyarrow.array([0, 2**62, 0], pyarrow.timestamp("us"))
    for name, column, said in (("a", ids, "not UTF-8"), ("b", dates, "out of range")):
        file = tmp_path / f"{name}.parquet"
        parquet.write_table(pyarrow.table({"text": ["x", "y", "z"], "id": column}), file)
        (block,) = read_blocks([file], Layout())
        found = list(block.documents())
        assert f"{file}, row 2: " in str(found[1])
        assert said in str(found[1])
        assert [type(document) for document in found] == [Document, CorpusError, Document]


def test_a_parquet_file_with_a_column_twice_is_named(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = [pyarrow.array(["x"]), pyarrow.array(["y"])]
    file = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table(columns, names=["text", "text"]), file)
    with pytest.raises(CorpusError, match="has 2 columns 'text'"):
        list(read_documents([file]))


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_long_text_that_many_rows_share_takes_the_memory_of_a_few(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 60, pyarrow.int32()), pyarrow.array(["a" * (15 << 20)])
    )
    file = tmp_path / "a.parquet"
    table = pyarrow.table({"text": texts})
    parquet.write_table(table, file, compression="zstd", store_schema=False)
    assert file.stat().st_size < 2000
    program = """if True:
        import os, resource, sys
        os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # others reserve more than they need
        from pathlib import Path
        import pyarrow.parquet
        from gpt_neox_japanese.corpus import parquet, read_documents
        parquet._BYTES_AT_ONCE = 2**26
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (1 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        print(sum(len(document.text) for document in read_documents([Path(sys.argv[1])])))
    """
    ended = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=False
    )
    assert ended.stdout == f"{60 * (15 << 20)}\n", ended.stderr
