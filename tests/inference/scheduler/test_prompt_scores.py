"""Scores of a prompt's own ids, against the model that transformers sees."""

from __future__ import annotations

import math
import random
import threading
from typing import Any

import numpy as np
import pytest
import torch

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.network import CHUNK, Network
from gpt_neox_japanese.inference.sampling.sampler import Choice, SamplingParams
from gpt_neox_japanese.inference.scheduler.engine import Engine
from tests.inference.networks import held, network_of, random_model

GREEDY = SamplingParams(temperature=0)
LENGTHS = (1, 2, 7, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5, 400)


def text(length: int, seed: int = 0) -> list[int]:
    return [random.Random(seed + length + at).randrange(50) for at in range(length)]


def scores(engine: Engine, ids: list[int], top: int = 0, **given: Any) -> list[Choice]:
    stream = engine.submit(
        ids, **{"max_new_tokens": 0, "params": GREEDY, "prompt_logprobs": top, **given}
    )
    list(stream)
    return list(stream.prompt_choices)


def expected(model: Any, ids: list[int]) -> Any:
    """float32 [ids, vocabulary]: log-probabilities of what follows each."""
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].log_softmax(-1).numpy()


@pytest.mark.parametrize("kind", ["compiled", "tensors"])
@pytest.mark.parametrize("length", LENGTHS)
def test_every_token_has_the_score_that_the_model_gives_it(kind: str, length: int) -> None:
    model, ids = random_model(), text(length)
    logprobs = expected(model, ids)
    found = scores(Engine(network_of(model, kind), stop_ids=[]), ids, top=3)
    assert [choice.id for choice in found] == ids[1:]
    for before, choice in enumerate(found):
        assert choice.logprob == pytest.approx(logprobs[before, choice.id], abs=2e-4)
        likeliest = np.sort(logprobs[before])[::-1][:3]
        np.testing.assert_allclose([value for _, value in choice.top], likeliest, atol=2e-4)


@pytest.mark.parametrize("length", LENGTHS[:-1])
def test_a_scored_prompt_is_continued_as_any_other(length: int) -> None:
    engine, ids = Engine(network_of(random_model()), stop_ids=[]), text(length)
    plain = engine.submit(ids, max_new_tokens=12, params=SamplingParams(logprobs=2), seed=1)
    written = list(plain)
    scored = engine.submit(
        ids, max_new_tokens=12, params=SamplingParams(logprobs=2), seed=1, prompt_logprobs=1
    )
    assert list(scored) == written
    assert len(scored.prompt_choices) == length - 1


def test_scores_do_not_depend_on_neighbours_nor_on_what_the_cache_holds() -> None:
    texts = [text(length, seed) for length in (5, CHUNK + 3, 300) for seed in range(4)]
    texts += [[*each[:200], 1, 2] for each in texts]
    wanted = []
    for ids in texts:
        with Engine(network_of(random_model()), stop_ids=[]) as alone:
            wanted.append(scores(alone, ids, top=2))
    engine = Engine(network_of(random_model(), slots=3), stop_ids=[7])
    found: list[list[Choice]] = [[] for _ in texts]

    def some(first: int) -> None:
        for number in range(first, len(texts), 4):
            engine.submit(texts[number], max_new_tokens=9, params=GREEDY)  # cancelled at once
            list(engine.submit(texts[number], max_new_tokens=9, params=GREEDY))
            found[number] = scores(engine, texts[number], top=2)

    threads = [threading.Thread(target=some, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == wanted


def test_nothing_is_written_where_no_token_is_asked_for() -> None:
    engine = Engine(network_of(random_model()), stop_ids=[])
    for prompt_logprobs in (None, 0, 2):
        for length in (1, 5, 400):
            stream = engine.submit(
                text(length), max_new_tokens=0, params=GREEDY, prompt_logprobs=prompt_logprobs
            )
            assert list(stream) == []
            assert stream.finish_reason == "length"
            assert not stream.context_is_full
            assert len(stream.prompt_choices) == (0 if prompt_logprobs is None else length - 1)
    with pytest.raises(GenerationError, match="401 tokens, the model reads at most 400; shorten"):
        scores(engine, text(401))
    for bad in (-1, 51, True, "1"):
        with pytest.raises(GenerationError, match="prompt_logprobs is"):
            scores(engine, text(5), top=bad)  # type: ignore[arg-type]


def test_the_stop_id_is_told_with_its_score() -> None:
    network = network_of(random_model())
    given: dict[str, Any] = {"params": SamplingParams(temperature=2, logprobs=2), "seed": 1}
    with Engine(network, stop_ids=[]) as engine:
        free = list(engine.submit([3, 1, 2], max_new_tokens=9, **given))
    stop = next(choice.id for choice in free if choice.id != free[0].id)
    with Engine(network, stop_ids=[stop]) as engine:
        stream = engine.submit([3, 1, 2], max_new_tokens=9, **given)
        written = list(stream)
        assert written == free[: len(written)]
        assert stream.stop_choice == free[len(written)]
        ended = engine.submit([3, 1, 2], max_new_tokens=1, **given)
        assert list(ended) == free[:1]
        assert ended.stop_choice is None


def test_scores_that_are_no_numbers_end_only_the_text_that_has_them() -> None:
    network = network_of(random_model(), slots=2)

    class Poisoned:
        def __getattr__(self, name: str) -> Any:
            return getattr(network, name)

        def decode(self, tokens: Any, num_without_logits: int = 0) -> Any:
            logits = np.array(network.decode(tokens, num_without_logits))
            for row, token in enumerate(tokens[num_without_logits:]):
                if token.id == 49:
                    logits[row] = math.nan
            return logits

    poisoned: Any = Poisoned()
    engine = Engine(poisoned, stop_ids=[])
    good = scores(engine, [1, 2, 3])
    with pytest.raises(GenerationError, match="nan"):
        scores(engine, [1, 49, 3])
    assert scores(engine, [1, 2, 3]) == good


# ---- Giving up -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["compiled", "tensors"])
def test_a_prefill_that_nobody_wants_any_more_is_given_up(kind: str) -> None:
    network = network_of(random_model(), kind)
    asked: list[int] = []

    def is_wanted() -> bool:
        asked.append(1)
        return len(asked) < 2

    assert network.prefill(text(2 * CHUNK), 0, 0, is_wanted=is_wanted) is None
    logits = network.prefill(text(2 * CHUNK), 0, 0)
    assert logits is not None
    assert logits.shape == (0, 50)


def test_texts_that_begin_like_one_that_was_given_up_are_right() -> None:
    ids = text(3 * CHUNK)
    network = network_of(random_model())
    with Engine(network, stop_ids=[]) as engine:
        wanted = [choice.id for choice in engine.submit(ids, max_new_tokens=9, params=GREEDY)]

    class Cancelling:
        """A network in whose prefills the reader goes away."""

        def __init__(self, network: Network) -> None:
            self.stream: Any = None
            self.network = network

        def __getattr__(self, name: str) -> Any:
            return getattr(self.network, name)

        def prefill(self, *given: Any, **named: Any) -> Any:
            if self.stream is not None:
                self.stream.cancel()
            return self.network.prefill(*given, **named)

    cancelling = Cancelling(network_of(random_model()))
    engine = Engine(cancelling, stop_ids=[])  # type: ignore[arg-type]
    for _ in range(3):
        blocker = engine.submit([1], max_new_tokens=300, params=GREEDY)
        cancelling.stream = engine.submit([*ids, 1], max_new_tokens=9, params=GREEDY)
        blocker.cancel()
        assert list(cancelling.stream) == []
        cancelling.stream = None
        found = [choice.id for choice in engine.submit(ids, max_new_tokens=9, params=GREEDY)]
        assert found == wanted


# ---- The queue -----------------------------------------------------------------------------------


def test_whoever_waits_knows_which_in_the_queue_it_is() -> None:
    network = network_of(random_model())
    engine = Engine(network, stop_ids=[])
    given: dict[str, Any] = {"max_new_tokens": 3, "params": GREEDY}
    with held(network) as hold:
        running = engine.submit([1], **given)
        waiting = [engine.submit([1], **given) for _ in range(4)]
        hold.reached.wait()
        assert [stream.queue_position for stream in (running, *waiting)] == [0, 1, 2, 3, 4]
        assert (engine.num_running, engine.num_waiting) == (1, 4)
        waiting.pop(1).cancel()
        assert [stream.queue_position for stream in waiting] == [1, 2, 3]
    assert [len(list(stream)) for stream in (running, *waiting)] == [3] * 4
    assert [stream.queue_position for stream in waiting] == [0, 0, 0]
    assert engine.num_waiting == 0


def test_a_text_that_begins_like_another_tells_what_it_had_from_it() -> None:
    engine, ids = Engine(network_of(random_model()), stop_ids=[]), text(2 * CHUNK + 9)
    for cached in (0, len(ids) - 1):
        stream = engine.submit(ids, max_new_tokens=2, params=GREEDY)
        list(stream)
        assert stream.num_cached_tokens == cached
        assert stream.num_prompt_tokens == len(ids)
