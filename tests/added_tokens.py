"""A model as its user leaves it: tokens were added, and its rows padded to a multiple of 64."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken

from gpt_neox_japanese import (
    GPTNeoXJapaneseConfig,
    GPTNeoXJapaneseForCausalLM,
    GPTNeoXJapaneseTokenizer,
)
from gpt_neox_japanese.tokenizer.codec import Codec
from tests.tokenizer.small import vocabulary

__all__ = ["USER", "WORD", "save_model"]

WORD = "彁彁"
USER = "<|user|>"


def save_model(directory: Path, *, end: str = "<|endoftext|>", legacy_files: bool = False) -> int:
    """Save model and tokenizer, and tell how many ids the tokenizer has.

    The rows of padding would win every choice: their scores are far larger than all others.

    Args:
        directory: Where both go.
        end: The token that ends a text.
        legacy_files: Write the added tokens as transformers did before `added_tokens_decoder`.
    """
    codec = Codec(vocabulary(["吾輩", "猫", "は", "。"]), legacy=False)
    codec.save(directory)
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(directory)
    tokenizer.add_tokens([AddedToken(WORD, rstrip=True)])
    tokenizer.add_special_tokens({"extra_special_tokens": [USER]})
    torch.manual_seed(0)
    model = GPTNeoXJapaneseForCausalLM(
        GPTNeoXJapaneseConfig(
            vocab_size=len(codec),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=48,
            initializer_range=0.5,
            bos_token_id=codec.token_to_id("<|startoftext|>"),
            eos_token_id=tokenizer.convert_tokens_to_ids(end),
        )
    )
    model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64, mean_resizing=False)
    rows = model.get_input_embeddings().weight.data
    rows[len(tokenizer) :] = 100 * torch.randn_like(rows[len(tokenizer) :])
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return len(tokenizer)
