"""Our step in datatrove's pipelines: the ids of `neox-ja prepare`, in files that training reads."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet
import pytest

from gpt_neox_japanese.errors import ArgumentError
from gpt_neox_japanese.training.data.prepare import prepare
from gpt_neox_japanese.training.data.run_data import open_data
from tests.conftest import SENTENCE

pytest.importorskip("datatrove")


def test_a_pipeline_gives_the_tokens_of_prepare(tmp_path: Path, tokenizer_directory: Path) -> None:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import ParquetReader

    from gpt_neox_japanese.interop.datatrove import GPTNeoXJapaneseDocumentTokenizer

    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number in range(3):
        rows = [{"id": f"{number}-{n}", "text": SENTENCE * n} for n in range(1, 20)]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), corpus / f"{number}.parquet")
    step = GPTNeoXJapaneseDocumentTokenizer(
        str(tmp_path / "tokens"), tokenizer_directory, shuffle_documents=False, batch_size=7
    )
    LocalPipelineExecutor(
        [ParquetReader(str(corpus)), step], tasks=3, logging_dir=str(tmp_path / "logs")
    ).run()
    prepare([corpus], tokenizer_directory, tmp_path / "data", held_out=0, workers=1)
    ours, theirs = (
        open_data(tmp_path / "data", None),
        open_data(tmp_path / "tokens", tokenizer_directory),
    )
    assert len(ours.train) == len(theirs.train)
    assert (ours.train.read(0, len(ours.train)) == theirs.train.read(0, len(theirs.train))).all()


@pytest.mark.parametrize("option", ["eos_token", "save_loss_metadata"])
def test_options_that_would_change_the_ids_are_refused(tmp_path: Path, option: str) -> None:
    from gpt_neox_japanese.interop.datatrove import GPTNeoXJapaneseDocumentTokenizer

    with pytest.raises(ArgumentError, match=option):
        GPTNeoXJapaneseDocumentTokenizer(str(tmp_path), "default", **{option: "x"})
