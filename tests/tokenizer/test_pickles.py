"""Pickles: what `datasets.map` hashes to find out whether it has computed something before."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from datasets.fingerprint import Hasher

from gpt_neox_japanese import Codec, GPTNeoXJapaneseTokenizer, Vocabulary
from tests.tokenizer.small import EMOJI, EMOJI_INV, vocabulary


@pytest.fixture
def files(tmp_path: Path) -> Path:
    vocabulary(["吾輩", "猫", "は", "慶応,慶應"]).save(tmp_path)
    return tmp_path


def use(thing: Any) -> None:
    """Everything that fills a cache: texts short and long, ids, names, fingerprints, warnings."""
    thing = getattr(thing, "func", thing)  # of a partial
    thing = getattr(thing, "__self__", thing)  # of a method
    if isinstance(thing, Vocabulary):
        assert len(thing.fingerprint) == 64
        assert thing.ids["猫"] == 1
        return
    ids = list(thing.encode("吾輩は猫\n" * 5_000))
    assert thing.decode(ids).startswith("吾輩は猫\n")
    assert thing.decode(ids[:3]) == "吾輩は猫"
    if isinstance(thing, GPTNeoXJapaneseTokenizer):
        thing.model_max_length = 7
        thing(["吾輩は猫", "猫"] * 5, padding=True, truncation=True, return_tensors="np")
        thing("猫" * 9)
        thing.pad({"input_ids": [[1], [1, 2]]})
        thing.get_vocab()
        thing.convert_tokens_to_ids(thing.tokenize("慶應"))
        thing.model_max_length = int(1e30)
        use(thing.codec)
    else:
        thing.encode_batch(["猫" * 6_000, "は"])
        thing.encode_with_offsets("猫" * 10)


WAYS: dict[str, Callable[[Path], Any]] = {
    "tokenizer": GPTNeoXJapaneseTokenizer.from_pretrained,
    "codec": Codec.load,
    "method": lambda files: Codec.load(files).encode,
    "partial": lambda files: functools.partial(Codec.load(files).encode, allowed_special="all"),
    "vocabulary": Vocabulary.load,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pickled", [pickle.dumps, Hasher.hash])
def test_use_changes_no_pickle(files: Path, way: str, pickled: Callable[[Any], object]) -> None:
    thing = WAYS[way](files)
    before = pickled(thing)
    use(thing)
    assert pickled(thing) == before
    assert pickled(WAYS[way](files)) == before


@pytest.mark.parametrize("way", WAYS)
def test_what_was_pickled_works_and_has_the_same_hash(files: Path, way: str) -> None:
    thing = WAYS[way](files)
    use(thing)
    other = pickle.loads(pickle.dumps(thing))
    assert Hasher.hash(other) == Hasher.hash(thing)
    use(other)
    assert Hasher.hash(other) == Hasher.hash(thing)


@pytest.mark.parametrize("way", WAYS)
def test_another_vocabulary_has_another_hash(files: Path, tmp_path: Path, way: str) -> None:
    before = Hasher.hash(WAYS[way](files))
    vocabulary(["吾輩", "猫", "は", "慶応"]).save(files)
    assert Hasher.hash(WAYS[way](files)) != before


def test_the_order_of_emoji_is_part_of_the_hash() -> None:
    words = vocabulary(["猫"]).surfaces
    backwards = dict(reversed(EMOJI.items()))
    one, other = (Vocabulary(words, emoji, EMOJI_INV) for emoji in (EMOJI, backwards))
    assert Hasher.hash(one) != Hasher.hash(other)
    assert Hasher.hash(Codec(one)) != Hasher.hash(Codec(other))


def test_options_and_added_tokens_have_other_hashes(files: Path) -> None:
    load = GPTNeoXJapaneseTokenizer.from_pretrained
    hashes = [
        Hasher.hash(load(files, **options))
        for options in ({}, {"legacy": False}, {"do_clean_text": True}, {"unk_token": None})
    ]
    tokenizer = load(files)
    tokenizer.add_tokens(["ほげ"])
    assert len({*hashes, Hasher.hash(tokenizer)}) == 5


def test_hashes_are_those_of_other_processes(files: Path) -> None:
    command = (
        "import sys; from datasets.fingerprint import Hasher; import gpt_neox_japanese as g;"
        "print(Hasher.hash(g.GPTNeoXJapaneseTokenizer.from_pretrained(sys.argv[1])),"
        " Hasher.hash(g.Codec.load(sys.argv[1])))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", command, str(files)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    here = (GPTNeoXJapaneseTokenizer.from_pretrained(files), Codec.load(files))
    assert [line.split() for line in found] == [[Hasher.hash(thing) for thing in here]]


def test_datasets_find_what_they_have_mapped_before(files: Path, tmp_path: Path) -> None:
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(files)
    Dataset.from_dict({"text": ["吾輩は猫", "猫"]}).to_json(tmp_path / "texts.jsonl")
    fingerprints = []
    for _ in range(3):
        data = Dataset.from_json(str(tmp_path / "texts.jsonl"), cache_dir=str(tmp_path / "cache"))
        mapped = data.map(lambda row: tokenizer(row["text"]))
        fingerprints.append(mapped._fingerprint)
        tokenizer("猫" * 20_000)
    assert len(set(fingerprints)) == 1
