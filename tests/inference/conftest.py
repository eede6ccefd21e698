from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gpt_neox_japanese import GPTNeoXJapaneseConfig, GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.tokenizer.codec import Codec
from tests.tokenizer.small import vocabulary


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete checkpoint directory with random weights."""
    directory = tmp_path_factory.mktemp("checkpoint")
    codec = Codec(vocabulary(["吾輩", "猫", "は", "。"]), legacy=False)
    codec.save(directory)
    torch.manual_seed(0)
    model = GPTNeoXJapaneseForCausalLM(
        GPTNeoXJapaneseConfig(
            vocab_size=len(codec.vocabulary),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=48,
            initializer_range=0.5,
            bos_token_id=codec.vocabulary.ids["<|startoftext|>"],
            eos_token_id=codec.vocabulary.ids["<|endoftext|>"],
        )
    )
    model.save_pretrained(directory)
    return directory
