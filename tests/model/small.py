from __future__ import annotations

from typing import Any

import torch

from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.tokenizer.codec import Codec


def small_model(codec: Codec, **config: Any) -> GPTNeoXJapaneseForCausalLM:
    """A model of a vocabulary, with random weights that are always the same."""
    torch.manual_seed(0)
    defaults = {
        "vocab_size": len(codec.vocabulary),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
        "bos_token_id": codec.eot_token,
        "eos_token_id": codec.eot_token,
    }
    return GPTNeoXJapaneseForCausalLM(GPTNeoXJapaneseConfig(**{**defaults, **config}))
