"""Small models: ours and, with the same weights, the one in transformers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import pytest
import torch
from torch import nn
from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseConfig as InTreeConfig
from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseForCausalLM as InTreeModel

from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM

_Model = TypeVar("_Model", bound=nn.Module)

TINY: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@dataclasses.dataclass
class Pair:
    ours: GPTNeoXJapaneseForCausalLM
    theirs: InTreeModel


MakeConfig: TypeAlias = Callable[..., GPTNeoXJapaneseConfig]
MakeModel: TypeAlias = Callable[..., GPTNeoXJapaneseForCausalLM]
MakePair: TypeAlias = Callable[..., Pair]


@pytest.fixture
def tiny_config() -> MakeConfig:
    def make(**changes: Any) -> GPTNeoXJapaneseConfig:
        return GPTNeoXJapaneseConfig(**(TINY | changes))

    return make


@pytest.fixture
def tiny_model(tiny_config: MakeConfig) -> MakeModel:
    def make(seed: int = 0, **changes: Any) -> GPTNeoXJapaneseForCausalLM:
        torch.manual_seed(seed)
        model = GPTNeoXJapaneseForCausalLM(tiny_config(**changes)).eval()
        return with_lively_weights(model)

    return make


@pytest.fixture
def pair() -> MakePair:
    def make(seed: int = 0, **changes: Any) -> Pair:
        torch.manual_seed(seed)
        theirs = with_lively_weights(InTreeModel(InTreeConfig(**(TINY | changes))).eval())
        ours = GPTNeoXJapaneseForCausalLM(GPTNeoXJapaneseConfig(**(TINY | changes))).eval()
        ours.load_state_dict(theirs.state_dict())
        return Pair(ours, theirs)

    return make


def with_lively_weights(model: _Model) -> _Model:
    """Weights so large, and biases so unlike zero, that any difference of two models shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model
