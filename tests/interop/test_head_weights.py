"""Names of a checkpoint's tensors in engines that have one head for all models."""

from __future__ import annotations

import pytest
import torch

from gpt_neox_japanese import GPTNeoXJapaneseConfig, GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.interop.head_weights import rename_head

EMBEDDING, HEAD = "gpt_neox_japanese.embed_in.weight", "embed_out.weight"


def checkpoint(*, tied: bool) -> dict[str, torch.Tensor]:
    """Every tensor of a small model under its name in a checkpoint."""
    config = GPTNeoXJapaneseConfig(
        vocab_size=8,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=tied,
    )
    return GPTNeoXJapaneseForCausalLM(config).state_dict()


def test_a_head_of_its_own_is_called_as_engines_call_it_and_nothing_else_is_renamed() -> None:
    weights = checkpoint(tied=False)
    renamed = dict(rename_head(weights.items(), tied=False))
    assert renamed.pop("lm_head.weight") is weights.pop(HEAD)
    assert renamed == weights


def test_a_head_that_is_the_embedding_is_not_given_twice() -> None:
    weights = checkpoint(tied=True)
    assert HEAD in weights
    assert set(rename_head(weights.items(), tied=True)) == {
        (name, tensor) for name, tensor in weights.items() if name != HEAD
    }


@pytest.mark.parametrize("names", [(EMBEDDING, HEAD), (HEAD, EMBEDDING), (HEAD, "embed_in.weight")])
def test_two_tensors_that_the_config_ties_are_refused_in_any_order(names: tuple[str, str]) -> None:
    weights = zip(names, (torch.zeros(8, 8), torch.ones(8, 8)), strict=True)
    with pytest.raises(CheckpointError, match='"tie_word_embeddings": false'):
        list(rename_head(weights, tied=True))
