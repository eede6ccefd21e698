"""EleutherAI's indexed datasets, honest and hostile."""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.training.data.megatron import indexed_datasets, open_indexed
from gpt_neox_japanese.training.data.run_data import open_data
from gpt_neox_japanese.training.data.shards import PreparedData
from gpt_neox_japanese.training.run import train
from gpt_neox_japanese.training.settings import Architecture, Settings

EOS = 9
DOCUMENTS = [[1, 2, 3, EOS], [4, EOS], [5, 6, 7, 8, EOS]]


def write(prefix: Path, documents: list[list[int]], dtype: str = "<u2", code: int = 8) -> Path:
    """A dataset as `tools/preprocess_data.py --append-eod` writes it: a sequence a document."""
    sizes = np.array([len(d) for d in documents], "<i4")
    data = np.concatenate([np.array(d, dtype) for d in documents])
    offsets = (np.cumsum(sizes, dtype="<i8") - sizes) * data.itemsize
    bounds = np.arange(len(documents) + 1, dtype="<i8")
    header = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, code, len(sizes), len(bounds))
    index = header + sizes.tobytes() + offsets.tobytes() + bounds.tobytes()
    prefix.with_name(prefix.name + ".idx").write_bytes(index)
    prefix.with_name(prefix.name + ".bin").write_bytes(data.tobytes())
    return prefix


@pytest.mark.parametrize(("dtype", "code"), [("<u2", 8), ("<i4", 4), ("<i8", 5), ("<u1", 1)])
def test_tokens_of_every_type_are_read_in_order(tmp_path: Path, dtype: str, code: int) -> None:
    stream = open_indexed([write(tmp_path / "d_text_document", DOCUMENTS, dtype, code)], 10, EOS)
    assert stream.read(0, len(stream)).tolist() == [i for d in DOCUMENTS for i in d]


def test_either_file_or_their_common_name_will_do(tmp_path: Path) -> None:
    prefix = write(tmp_path / "d", DOCUMENTS)
    for name in ("d", "d.bin", "d.idx"):
        assert indexed_datasets(tmp_path / name) == [prefix]
    assert indexed_datasets(tmp_path / "other") == []


@pytest.mark.parametrize(("dtype", "code"), [("<u2", 8), ("<i4", 4)])
def test_a_directory_as_nemo_curator_writes_it_is_read_in_the_order_of_names(
    tmp_path: Path, dtype: str, code: int
) -> None:
    assert indexed_datasets(tmp_path) == []
    write(tmp_path / "b1f3", DOCUMENTS[1:], dtype, code)
    write(tmp_path / "0a9c", DOCUMENTS[:1], dtype, code)
    write(tmp_path / "5d5d", [[]], dtype, code)
    stream = open_indexed(indexed_datasets(tmp_path), 10, EOS)
    assert stream.read(0, len(stream)).tolist() == [i for d in DOCUMENTS for i in d]


def patched(path: Path, at: int, kind: str, value: int) -> None:
    data = bytearray(path.read_bytes())
    struct.pack_into(kind, data, at, value)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("at", "kind", "value", "problem"),
    [
        (0, "<B", 0, "does not begin with MMIDIDX"),
        (9, "<Q", 2, "version 2"),
        (17, "<B", 7, "no integer type"),
        (18, "<Q", 2**64 - 1, "names 18446744073709551615 sequences"),
        (26, "<Q", 2**61, "bounds in"),
        (34, "<i", -1, "bytes, it has|negative size"),
        (34, "<i", 2**31 - 1, "bytes, it has"),
        (46, "<q", 2, "one after the other"),
        (54, "<q", -8, "one after the other"),
        (70, "<q", 1, "from the first sequence to the last"),
        (78, "<q", 2**40, "from the first sequence to the last"),
        (94, "<q", 2, "from the first sequence to the last"),
    ],
)
def test_a_hostile_index_is_refused(
    tmp_path: Path, at: int, kind: str, value: int, problem: str
) -> None:
    prefix = write(tmp_path / "d", DOCUMENTS)
    patched(tmp_path / "d.idx", at, kind, value)
    with pytest.raises(DataError, match=problem):
        open_indexed([prefix], 10, EOS)


@pytest.mark.parametrize("length", [0, 9, 33, 60, 101])
def test_an_index_that_is_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    prefix = write(tmp_path / "d", DOCUMENTS)
    index = tmp_path / "d.idx"
    index.write_bytes(index.read_bytes()[:length])
    with pytest.raises(DataError, match="is no index"):
        open_indexed([prefix], 10, EOS)


def test_missing_short_and_endless_tokens_are_refused(tmp_path: Path) -> None:
    prefix = write(tmp_path / "d", DOCUMENTS)
    data = (tmp_path / "d.bin").read_bytes()
    (tmp_path / "d.bin").write_bytes(data[:-1])
    with pytest.raises(DataError, match="should have 22 bytes, it has 21"):
        open_indexed([prefix], 10, EOS)
    (tmp_path / "d.bin").unlink()
    with pytest.raises(DataError, match="it is missing"):
        open_indexed([prefix], 10, EOS)
    with pytest.raises(DataError, match="--append-eod"):
        open_indexed([write(tmp_path / "e", [[1, 2], [3, 4]])], 10, EOS)
    with pytest.raises(DataError, match="is empty"):
        open_indexed([write(tmp_path / "f", [[]])], 10, EOS)


def test_an_id_outside_the_vocabulary_never_reaches_the_model(tmp_path: Path) -> None:
    documents = [[1, 2, EOS], [3, 4000, EOS]]
    stream = open_indexed([write(tmp_path / "d", documents)], 10, EOS)
    with pytest.raises(DataError, match="token 4 is 4000, but the vocabulary has ids 0 to 9"):
        stream.read(2, 3)
    negative = open_indexed([write(tmp_path / "e", [[1, -2, EOS]], "<i4", 4)], 10, EOS)
    with pytest.raises(DataError, match="token 1 is -2"):
        negative.read(0, 3)


def test_a_run_on_indexed_data_is_the_run_on_the_same_shards(
    tmp_path: Path, prepared: Path, tokenizer_directory: Path
) -> None:
    data = PreparedData(prepared)
    eos = data.manifest.eos_token_id

    def documents(stream: object) -> list[list[int]]:
        ids = stream.read(0, len(stream))  # type: ignore[attr-defined, arg-type]
        return [d.tolist() for d in np.split(ids, np.flatnonzero(ids == eos) + 1) if len(d)]

    write(tmp_path / "t", documents(data.train))
    write(tmp_path / "h", documents(data.held_out))
    settings = Settings(sequence_length=16, batch_size=2, steps=2, dtype="fp32", log_every=1)
    shape = Architecture(8, 1, 1)
    train(prepared, tmp_path / "a", settings, shape)
    named = {"tokenizer": tokenizer_directory, "held_out": tmp_path / "h"}
    begin = partial(
        train, tmp_path / "t", tmp_path / "b", settings, shape, tokenizer=tokenizer_directory
    )
    begin(held_out=tmp_path / "h")
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in "ab"]
    assert weights[0] == weights[1]
    opened = open_data(tmp_path / "t", **named)
    other = write(tmp_path / "other", documents(data.held_out)[1:])
    # The digest of what is learned is that of earlier versions, which knew of nothing else.
    assert opened.fingerprint == open_data(tmp_path / "t", tokenizer_directory).fingerprint
    with pytest.raises(DataError, match="other held-out text; give the same --held-out-data"):
        begin(held_out=other, resume=True)
    assert begin(held_out=tmp_path / "h", resume=True)
    assert opened.codec.vocabulary == Codec.load(prepared).vocabulary
    density = open_data(prepared, None).tokens_per_character
    assert opened.tokens_per_character == pytest.approx(density)
    with pytest.raises(DataError, match="name one with --tokenizer"):
        open_data(tmp_path / "t", None)
    assert len(open_data(tmp_path / "t", None, model=tokenizer_directory).codec)
    with pytest.raises(DataError, match="leave out --tokenizer"):
        open_data(prepared, tokenizer_directory)
    with pytest.raises(DataError, match="leave out --held-out-data"):
        open_data(prepared, None, tmp_path / "h")
