"""Which tensors belong to a configuration: whoever reads a checkpoint judges alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from gpt_neox_japanese import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.files.tensor_files import read_tensors
from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint
from gpt_neox_japanese.inference.loading.load import load_network
from gpt_neox_japanese.interop.gguf_writer import write_gguf
from gpt_neox_japanese.interop.neox_checkpoints import to_neox
from gpt_neox_japanese.quantization.convert import convert
from tests.interop.samples import small_codec, small_model, with_config

READERS: dict[str, Callable[[Path, Path], object]] = {
    "engine": lambda model, _: load_network(Checkpoint.open(model), threads=1),
    "classes": lambda model, _: GPTNeoXJapaneseForCausalLM.from_pretrained(model),
    "bf16": partial(convert, bits=16, read=read_tensors),
    "int8": partial(convert, bits=8, read=read_tensors),
    "gguf": write_gguf,
    "gpt-neox": to_neox,
}


@pytest.fixture
def headless(tmp_path: Path) -> Path:
    """A model without its head, which is not the embedding."""
    model = small_model(tmp_path / "model", small_codec(), tie_word_embeddings=False)
    tensors = load_file(model / "model.safetensors")
    del tensors["embed_out.weight"]
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    return model


@pytest.mark.parametrize("reader", READERS)
def test_a_language_model_without_its_head_is_refused_by_every_reader(
    headless: Path, tmp_path: Path, reader: str
) -> None:
    with pytest.raises(CheckpointError, match=r"embed_out\.weight is missing.*tie_word_embeddings"):
        READERS[reader](headless, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_that_needs_no_head_is_converted_without(headless: Path, tmp_path: Path) -> None:
    with_config(headless, architectures=["GPTNeoXJapaneseModel"])
    convert(headless, tmp_path / "out", 8, read=read_tensors)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "embed_out" not in config["quantization_config"]["modules"]
    with pytest.raises(CheckpointError, match="embed_out"):
        write_gguf(headless, tmp_path / "model.gguf")
