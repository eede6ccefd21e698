from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gpt_neox_japanese import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.checkpoint import Checkpoint
from gpt_neox_japanese.inference.engine import Engine
from gpt_neox_japanese.inference.network import Network, Shape
from gpt_neox_japanese.inference.sampling import SamplingOptions
from gpt_neox_japanese.inference.weights import read_weights

GREEDY = SamplingOptions(temperature=0)
PROMPT = [3, 1, 2]


@pytest.fixture(scope="module")
def network(checkpoint: Path) -> Network:
    config = Checkpoint.open(checkpoint).config
    return Network(Shape.of(config), read_weights(checkpoint), dtype=torch.float32)


def write(engine: Engine, prompt: list[int] = PROMPT, **given: object) -> list[int]:
    arguments = {"max_new_tokens": 20, "options": GREEDY, **given}
    return list(engine.generate(prompt, **arguments))  # type: ignore[arg-type]


def test_greedy_ids_equal_those_of_transformers_generate(
    network: Network, checkpoint: Path
) -> None:
    engine = Engine(network, stop_ids=[])
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(checkpoint).eval()
    for prompt in ([0], [3, 1, 2], list(range(20))):
        expected = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=20,
            do_sample=False,
            eos_token_id=None,
        )
        assert write(engine, prompt) == expected[0, len(prompt) :].tolist()


def test_stop_id_ends_the_sequence_and_is_no_part_of_it(network: Network) -> None:
    free = write(Engine(network, stop_ids=[]))
    stop = free[5]
    assert write(Engine(network, stop_ids=[stop])) == free[: free.index(stop)]


def test_seed_decides_the_ids(network: Network) -> None:
    engine, options = Engine(network, stop_ids=[]), SamplingOptions()
    first = write(engine, options=options, seed=1)
    assert write(engine, options=options, seed=1) == first
    assert write(engine, options=options, seed=2) != first
    assert write(engine, options=options) != write(engine, options=options)


def test_writing_leaves_the_global_random_state_alone(network: Network) -> None:
    before = torch.random.get_rng_state()
    write(Engine(network, stop_ids=[]), options=SamplingOptions(), seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_writing_ends_where_the_context_is_full(network: Network) -> None:
    assert len(write(Engine(network, stop_ids=[]), [1] * 40, max_new_tokens=100)) == 8


@pytest.mark.parametrize(
    ("prompt", "max_new_tokens", "said"),
    [
        ([], 1, "empty"),
        ([1] * 48, 1, "48 tokens"),
        ([-1], 1, "id -1"),
        ([10_000], 1, "id 10000"),
        ([1], 0, "max_new_tokens is 0"),
    ],
)
def test_bad_prompt_is_told_before_anything_is_written(
    network: Network, prompt: list[int], max_new_tokens: int, said: str
) -> None:
    with pytest.raises(GenerationError, match=said):
        Engine(network, stop_ids=[]).generate(prompt, max_new_tokens=max_new_tokens, options=GREEDY)
