"""How fast a network writes on this machine, and how far that is from what its memory allows.

Writing one token of one text reads every weight once, so the rate at which the processor reads
memory bounds it. Several texts share that reading, until arithmetic is the bound; a prompt is
arithmetic alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.checks import check_integer
from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.loading.weight_map import Weights
from gpt_neox_japanese.inference.network import Network
from gpt_neox_japanese.inference.sampling.params import SamplingParams
from gpt_neox_japanese.inference.scheduler.engine import Engine
from gpt_neox_japanese.quantization.formats import Matrix

__all__ = ["PromptSpeed", "WritingSpeed", "bytes_per_step", "measure_reading", "measure_speed"]

_READ_AT_LEAST = 1 << 28  # bytes: shorter readings are too short to time


@dataclass(frozen=True)
class PromptSpeed:
    """How fast a prompt is read.

    Attributes:
        tokens: Of the prompt.
        seconds_to_first_token: From the request to the first id that is written.
        tokens_per_second: Of the prompt.
    """

    tokens: int
    seconds_to_first_token: float
    tokens_per_second: float


@dataclass(frozen=True)
class WritingSpeed:
    """How fast several texts are written at the same time.

    Attributes:
        texts: How many.
        tokens_per_second: Of all of them together.
        seconds_per_token: What the reader of one text waits for each.
    """

    texts: int
    tokens_per_second: float
    seconds_per_token: float


def measure_speed(
    network: Network,
    *,
    params: SamplingParams,
    texts: Sequence[int] = (1, 8, 32),
    prompt_tokens: int = 512,
    new_tokens: int = 128,
    rounds: int = 3,
) -> tuple[PromptSpeed, list[WritingSpeed]]:
    """Time a network through an engine, as `TextGenerator` runs it, but without strings.

    Prompts are ids drawn at random, another one each time, so that nothing is taken from the KV
    cache. All cases take turns, after a round that is not counted, and the medians are given.

    Args:
        network: No other engine may run it. Its slots say how many texts it writes at once.
        params: How each id is chosen. Sampling takes time too.
        texts: Numbers of texts that are written at the same time.
        prompt_tokens: Length of the prompt whose prefill is timed.
        new_tokens: How many tokens each text is long. Its prompt is a single one.
        rounds: How often each case is timed.

    Returns:
        The prompt's speed, and that of writing for each number of texts.

    Raises:
        GenerationError: A number is out of range, or the context is too short for it.
    """
    capacity = network.capacity
    for count in texts:
        check_integer("texts", count, GenerationError, minimum=1, maximum=network.slots)
    check_integer("prompt_tokens", prompt_tokens, GenerationError, minimum=1, maximum=capacity - 1)
    check_integer("new_tokens", new_tokens, GenerationError, minimum=1, maximum=capacity - 1)
    check_integer("rounds", rounds, GenerationError, minimum=1)
    random = np.random.default_rng(0)

    def write(count: int, prompt_length: int, length: int) -> None:
        prompts = random.integers(network.hparams.vocab_size, size=(count, prompt_length)).tolist()
        streams = [
            engine.submit(prompt, max_new_tokens=length, params=params, seed=seed)
            for seed, prompt in enumerate(prompts)
        ]
        for stream in streams:
            for _ in stream:
                pass

    cases: list[Callable[[], None]] = [lambda: write(1, prompt_tokens, 1)]
    cases += [lambda count=count: write(count, 1, new_tokens) for count in texts]  # type: ignore[misc]
    with Engine(network, stop_ids=(), max_waiting=network.slots) as engine:
        reading, *writing = _median_seconds(cases, rounds)
    return (
        PromptSpeed(prompt_tokens, reading, prompt_tokens / reading),
        [
            WritingSpeed(count, count * new_tokens / seconds, seconds / new_tokens)
            for count, seconds in zip(texts, writing, strict=True)
        ],
    )


def bytes_per_step(weights: Weights) -> int:
    """Bytes of weights that a step reads, however many texts it writes.

    Args:
        weights: Of a network. A table that only looks up embeddings is not read through.

    Returns:
        Bytes.
    """
    return sum(matrix.nbytes for matrix in _matrices_of_step(weights))


def measure_reading(weights: Weights, threads: int, rounds: int = 5) -> float:
    """The rate at which threads can read the numbers of these weights and do nothing else.

    Small weights are read from the processor's cache, as a network reads them.

    Args:
        weights: Of a network.
        threads: How many.
        rounds: How often it is timed.

    Returns:
        Bytes a second, the best round.
    """
    matrices = _matrices_of_step(weights)
    shares = [[_part(matrix, i, threads) for matrix in matrices] for i in range(threads)]
    size = sum(part.nbytes for share in shares for part in share)
    times = -(-_READ_AT_LEAST // size)

    def read(mine: list[NDArray[np.uint64]]) -> None:
        for part in mine * times:
            part.max(initial=0)  # nothing that NumPy does is closer to reading alone

    with ThreadPoolExecutor(threads) as pool:
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            list(pool.map(read, shares))
            seconds.append(time.perf_counter() - start)
    return times * size / min(seconds)


def _median_seconds(cases: Sequence[Callable[[], None]], rounds: int) -> list[float]:
    seconds: list[list[float]] = [[] for _ in cases]
    for number in range(rounds + 1):
        for case, times in zip(cases, seconds, strict=True):
            start = time.perf_counter()
            case()
            if number:  # the first compiles, and fills caches
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]


def _matrices_of_step(weights: Weights) -> list[Matrix]:
    return [matrix for layer in weights.layers for matrix in layer.matrices] + [weights.head]


def _part(matrix: Matrix, number: int, count: int) -> NDArray[np.uint64]:
    """One of `count` parts of a matrix's numbers, as words, without what is less than a word."""
    flat = matrix.numbers.reshape(-1).view(np.uint8)
    words = flat[: flat.size - flat.size % 8].view(np.uint64)
    return np.array_split(words, count)[number]
