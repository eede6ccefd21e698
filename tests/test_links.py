"""A model directory made of links, as DVC, Nix and the Hub make them, is one like any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt_neox_japanese import (
    Codec,
    GPTNeoXJapaneseForCausalLM,
    GPTNeoXJapaneseTokenizer,
    TextGenerator,
    default_model_directory,
)
from gpt_neox_japanese.files.tensor_files import read_tensors
from gpt_neox_japanese.quantization.convert import convert as convert_directory

TEXT = "吾輩は猫である。"


@pytest.fixture
def links(tmp_path: Path) -> Path:
    directory = tmp_path / "links"
    directory.mkdir()
    for file in Path(default_model_directory()).iterdir():
        if file.is_file():
            (directory / file.name).symlink_to(file)
    return directory


def test_tokenizers_follow_links(links: Path) -> None:
    ids = Codec.load(default_model_directory()).encode(TEXT)
    assert Codec.load(links).encode(TEXT) == ids
    assert GPTNeoXJapaneseTokenizer.from_pretrained(links)(TEXT)["input_ids"] == ids


def test_models_follow_links(links: Path) -> None:
    here = GPTNeoXJapaneseForCausalLM.from_pretrained(default_model_directory())
    there = GPTNeoXJapaneseForCausalLM.from_pretrained(links)
    assert all(map(lambda a, b: a.equal(b), here.parameters(), there.parameters()))


def test_generation_follows_links(links: Path) -> None:
    texts = [
        TextGenerator.load(directory).generate(TEXT, max_new_tokens=4, temperature=0)
        for directory in (default_model_directory(), links)
    ]
    assert texts[0] == texts[1]


def test_conversion_follows_links_and_leaves_none(links: Path, tmp_path: Path) -> None:
    output = tmp_path / "converted"
    convert_directory(links, output, 16, read=read_tensors)
    assert not any(file.is_symlink() for file in output.iterdir())
    assert Codec.load(output).vocabulary == Codec.load(links).vocabulary
