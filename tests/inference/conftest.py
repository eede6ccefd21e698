from __future__ import annotations

from pathlib import Path

import pytest

from gpt_neox_japanese.tokenizer.codec import Codec
from tests.model.small import small_model
from tests.tokenizer.small import vocabulary


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete checkpoint directory with random weights."""
    directory = tmp_path_factory.mktemp("checkpoint")
    codec = Codec(vocabulary(["吾輩", "猫", "は", "。"]), legacy=False)
    codec.save(directory)
    model = small_model(
        codec,
        hidden_size=32,
        num_hidden_layers=2,
        max_position_embeddings=48,
        initializer_range=0.5,
        bos_token_id=codec.vocabulary.ids["<|startoftext|>"],
    )
    model.save_pretrained(directory)
    return directory
