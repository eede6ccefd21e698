"""What is measured is what was done: tokens are counted, and nothing is taken from the cache."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference import speed
from gpt_neox_japanese.inference.cpu.network import CompiledNetwork
from gpt_neox_japanese.inference.network import CHUNK, BatchToken
from gpt_neox_japanese.inference.sampling.params import SamplingParams
from gpt_neox_japanese.inference.speed import bytes_per_step, measure_reading, measure_speed
from gpt_neox_japanese.quantization.quantize import quantize
from tests.inference.networks import network_of, random_model

PARAMS = SamplingParams(temperature=1)


class CountingNetwork(CompiledNetwork):
    """Counts the tokens that it computes."""

    decoded = read = 0

    def decode(self, tokens: Sequence[BatchToken], num_without_logits: int = 0) -> Any:
        self.decoded += len(tokens)
        return super().decode(tokens, num_without_logits)

    def prefill(self, ids: Sequence[int], *arguments: Any, **options: Any) -> Any:
        self.read += len(ids)
        return super().prefill(ids, *arguments, **options)


@pytest.fixture
def network() -> CountingNetwork:
    plain = network_of(random_model(), slots=3)
    return CountingNetwork(plain.hparams, plain.weights, slots=3, threads=1)  # type: ignore[attr-defined]


def test_every_token_that_is_counted_was_computed(network: CountingNetwork) -> None:
    prompt, writing = measure_speed(
        network, params=PARAMS, texts=(1, 3), prompt_tokens=CHUNK + 10, new_tokens=7, rounds=2
    )
    rounds = 3  # the first is not counted
    assert network.read == rounds * CHUNK
    assert network.decoded == rounds * (10 + 1 * 7 + 3 * 7)
    assert [each.texts for each in writing] == [1, 3]
    for each in writing:
        seconds = 7 * each.seconds_per_token
        assert each.tokens_per_second == pytest.approx(each.texts * 7 / seconds)
    assert prompt.tokens == CHUNK + 10
    assert prompt.tokens_per_second == pytest.approx(prompt.tokens / prompt.seconds_to_first_token)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"texts": (4,)}, "texts is 4"),
        ({"texts": (0,)}, "texts is 0"),
        ({"prompt_tokens": 400}, "prompt_tokens is 400"),
        ({"new_tokens": 0}, "new_tokens is 0"),
        ({"rounds": 0}, "rounds is 0"),
    ],
)
def test_what_does_not_fit_is_named(
    network: CountingNetwork, changes: dict[str, Any], said: str
) -> None:
    options = {"texts": (1,), "prompt_tokens": 5, "new_tokens": 2, "rounds": 1, **changes}
    with pytest.raises(GenerationError, match=said):
        measure_speed(network, params=PARAMS, **options)
    assert network.decoded == network.read == 0


def test_a_step_reads_all_matrices_but_an_embedding_of_its_own() -> None:
    untied = network_of(random_model()).weights  # type: ignore[attr-defined]
    tied = untied._replace(head=untied.embedding)
    assert bytes_per_step(tied) == sum(matrix.nbytes for matrix in tied.matrices)
    assert bytes_per_step(untied) == bytes_per_step(tied)


@pytest.mark.parametrize("threads", [1, 3])
def test_reading_is_a_rate(threads: int) -> None:
    weights = network_of(random_model()).weights  # type: ignore[attr-defined]
    assert np.isfinite(measure_reading(weights, threads, rounds=1))


@pytest.mark.parametrize("bits", [8, 4])
def test_the_rate_of_reading_counts_what_is_read(
    monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    weights = network_of(random_model()).weights  # type: ignore[attr-defined]
    weights = weights._replace(head=quantize(weights.head.numbers, bits))
    monkeypatch.setattr(speed, "_READ_AT_LEAST", 1)
    ticks = itertools.count()
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    matrices = [matrix for layer in weights.layers for matrix in layer.matrices] + [weights.head]
    # Of scales nothing is read.
    assert measure_reading(weights, threads=3) == sum(each.numbers.nbytes for each in matrices)
