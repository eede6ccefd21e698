"""Small networks with random weights, for tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpt_neox_japanese import GPTNeoXJapaneseConfig, GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.inference.cpu.network import CompiledNetwork
from gpt_neox_japanese.inference.loading.hparams import HParams
from gpt_neox_japanese.inference.loading.weight_map import map_weights
from gpt_neox_japanese.inference.network import BatchToken, Network
from gpt_neox_japanese.inference.torch.network import TensorNetwork

TINY: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 400,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def random_model(**changes: Any) -> GPTNeoXJapaneseForCausalLM:
    """The model that transformers sees, with weights that make every part matter."""
    torch.manual_seed(0)
    model = GPTNeoXJapaneseForCausalLM(GPTNeoXJapaneseConfig(**TINY | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def tensors_of(model: GPTNeoXJapaneseForCausalLM) -> dict[str, NDArray[Any]]:
    """Its tensors as NumPy's arrays."""
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def network_of(
    model: GPTNeoXJapaneseForCausalLM, kind: str = "compiled", **options: Any
) -> Network:
    """A network with a model's weights: "compiled" or "tensors"."""
    hparams = HParams.from_config(model.config.to_dict())
    weights = map_weights(hparams, tensors_of(model), bfloat16=False)
    if kind == "tensors":
        return TensorNetwork(hparams, weights, **options)
    return CompiledNetwork(hparams, weights, **options)


def scores_of(network: Network, ids: list[int], slot: int = 0, at_once: int = 8) -> Any:
    """Scores after the last of some ids, read a few at a time into an unused slot."""
    for begin in range(0, len(ids), at_once):
        part = ids[begin : begin + at_once]
        tokens = [BatchToken(token, slot, begin + i) for i, token in enumerate(part)]
        scores = network.decode(tokens, len(part) - 1)
    return np.array(scores[0])


class Held:
    """A network whose steps wait.

    Attributes:
        reached: Set once a step waits.
        released: Set it, and all steps go on.
    """

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.released = threading.Event()


@contextmanager
def held(network: Any) -> Iterator[Held]:
    """No step of decoding begins before the end of the block, however fast the network is."""
    hold, decode = Held(), network.decode

    def wait_and_decode(*given: Any) -> Any:
        hold.reached.set()
        hold.released.wait()
        return decode(*given)

    network.decode = wait_and_decode
    try:
        yield hold
    finally:
        hold.released.set()
        network.decode = decode
