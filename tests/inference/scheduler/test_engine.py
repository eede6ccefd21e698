from __future__ import annotations

import itertools
import math
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt_neox_japanese import (
    Codec,
    GPTNeoXJapaneseForCausalLM,
    TextGenerator,
    default_model_directory,
)
from gpt_neox_japanese.corpus import read_documents
from gpt_neox_japanese.errors import GenerationError, QueueFullError
from gpt_neox_japanese.inference.network import CHUNK, Network
from gpt_neox_japanese.inference.sampling.sampler import SamplingParams
from gpt_neox_japanese.inference.scheduler.engine import Engine
from tests.inference.networks import held, network_of, random_model

GREEDY = SamplingParams(temperature=0)
SAMPLED = SamplingParams(temperature=1.2, top_p=0.95, repetition_penalty=1.1)
PROMPT = [3, 1, 2]


@pytest.fixture
def network() -> Network:
    return network_of(random_model())


@pytest.fixture
def wide_network() -> Network:
    return network_of(random_model(), slots=5)


def write(engine: Engine, prompt: Any = PROMPT, **given: Any) -> list[int]:
    arguments = {"max_new_tokens": 20, "params": GREEDY, **given}
    return [choice.id for choice in engine.submit(prompt, **arguments)]


def test_greedy_ids_equal_those_of_transformers_generate(network: Network) -> None:
    engine, model = Engine(network, stop_ids=[]), random_model()
    for prompt in ([0], [3, 1, 2], list(range(20)), [*range(40)] * 4):
        expected = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=20,
            do_sample=False,
            eos_token_id=None,
        )
        assert write(engine, prompt) == expected[0, len(prompt) :].tolist()


@pytest.mark.parametrize("count", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_greedy_ids_of_the_embedded_model_are_those_of_transformers(
    count: int, corpus_directory: Path
) -> None:
    generator = TextGenerator.load()
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(default_model_directory(), dtype="float32")
    codec = Codec.load(default_model_directory())
    for document in itertools.islice(read_documents([corpus_directory]), count):
        prompt = codec.encode(document.text[200:260])
        expected = (
            model.eval()
            .generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=40,
                do_sample=False,
                repetition_penalty=1.0,
            )[0, len(prompt) :]
            .tolist()
        )
        stream = generator.engine.submit(prompt, max_new_tokens=40, params=GREEDY)
        assert [choice.id for choice in stream] == [i for i in expected if i != 7999]


def test_stop_id_ends_the_sequence_and_is_no_part_of_it(network: Network) -> None:
    with Engine(network, stop_ids=[]) as engine:
        free = write(engine)
    stop = free[5]
    with Engine(network, stop_ids=[stop]) as engine:
        stream = engine.submit(PROMPT, max_new_tokens=20, params=GREEDY)
        assert [choice.id for choice in stream] == free[: free.index(stop)]
        assert stream.finish_reason == "stop"


def test_seed_decides_the_ids(network: Network) -> None:
    engine = Engine(network, stop_ids=[])
    first = write(engine, params=SAMPLED, seed=1)
    assert write(engine, params=SAMPLED, seed=1) == first
    assert write(engine, params=SAMPLED, seed=2) != first
    assert write(engine, params=SAMPLED) != write(engine, params=SAMPLED)


def test_writing_ends_where_the_context_is_full(network: Network) -> None:
    engine = Engine(network, stop_ids=[])
    stream = engine.submit([1] * 390, max_new_tokens=99, params=GREEDY)
    assert len(list(stream)) == 10
    assert stream.finish_reason == "length"


@pytest.mark.parametrize(
    ("prompt", "given", "said"),
    [
        ([], {}, "empty"),
        ([1] * 400, {}, "400 tokens"),
        ([-1], {}, "id -1"),
        ([10_000], {}, "id 10000"),
        ([1.0], {}, "1.0"),
        ([True], {}, "True"),
        (["1"], {}, "'1'"),
        ("猫", {}, "list of token ids"),
        (7, {}, "list of token ids"),
        (np.array([[1]]), {}, r"\[1\]"),
        (np.array([1.0]), {}, "1.0"),
        ([10**5000], {}, "huge"),
        ([1], {"max_new_tokens": -1}, "max_new_tokens is -1"),
        ([1], {"max_new_tokens": 1.5}, "max_new_tokens is 1.5"),
        ([1], {"max_new_tokens": math.nan}, "max_new_tokens is nan"),
        ([1], {"max_new_tokens": "3"}, "max_new_tokens is '3'"),
        ([1], {"max_new_tokens": True}, "max_new_tokens is True"),
        ([1], {"max_new_tokens": None}, "max_new_tokens is None"),
        ([1], {"params": SamplingParams(logit_bias={50: 1.0})}, "id 50"),
        ([1], {"seed": -1}, "seed is -1"),
        ([1], {"seed": 1.5}, "seed is 1.5"),
        ([1], {"seed": "1"}, "seed is '1'"),
        ([1], {"seed": 2**64}, "seed is"),
    ],
)
def test_bad_requests_are_told_at_once_and_disturb_nobody(
    network: Network, prompt: Any, given: dict[str, Any], said: str
) -> None:
    engine = Engine(network, stop_ids=[])
    expected = write(engine)
    neighbour = engine.submit(PROMPT, max_new_tokens=20, params=GREEDY)
    first = next(neighbour).id
    with pytest.raises(GenerationError, match=said):
        write(engine, prompt, **given)
    assert [first, *(choice.id for choice in neighbour)] == expected


def test_integers_of_numpy_are_integers(network: Network) -> None:
    engine = Engine(network, stop_ids=[])
    expected = write(engine, [3, 1, 2], max_new_tokens=5)
    for prompt in (np.array([3, 1, 2], np.int32), [np.uint8(3), np.int64(1), 2]):
        assert write(engine, prompt, max_new_tokens=np.int16(5)) == expected


# ---- Neighbours ----------------------------------------------------------------------------------


def jobs(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Requests of all kinds; many begin alike."""
    chance = random.Random(seed)
    shared = [chance.randrange(50) for _ in range(2 * CHUNK + 20)]
    made = []
    for number in range(count):
        length = chance.choice([1, 4, 30, CHUNK + 5, 2 * CHUNK + 9])
        begin = shared if chance.random() < 0.6 else [chance.randrange(50) for _ in shared]
        end = [chance.randrange(50) for _ in range(chance.randrange(1, 9))]
        made.append(
            {
                "prompt_ids": begin[:length] + end,
                "max_new_tokens": chance.randrange(1, 24),
                "params": chance.choice([GREEDY, SAMPLED]),
                "seed": number,
            }
        )
    return made


def run_beside(engine: Engine, work: list[dict[str, Any]], threads: int) -> list[list[int]]:
    results: list[list[int]] = [[] for _ in work]

    def some(first: int) -> None:
        for index in range(first, len(work), threads):
            results[index] = [choice.id for choice in engine.submit(**work[index])]

    started = [threading.Thread(target=some, args=(first,)) for first in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return results


@pytest.mark.parametrize("prompt_lookup", [False, True])
@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_ids_do_not_depend_on_neighbours(
    network: Network, wide_network: Network, prompt_lookup: bool, count: int
) -> None:
    work = jobs(count)
    alone = Engine(network, stop_ids=[7])
    expected = [[choice.id for choice in alone.submit(**job)] for job in work]
    # Texts left in the cache by `alone` are shared too, so a second engine starts afresh.
    beside = Engine(wide_network, stop_ids=[7], prompt_lookup=prompt_lookup)
    assert run_beside(beside, work, threads=7) == expected


class Counted:
    """A network that counts its steps."""

    def __init__(self, network: Network) -> None:
        self.steps = 0
        self._network = network

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def decode(self, *arguments: Any) -> Any:
        self.steps += 1
        return self._network.decode(*arguments)


def test_prompt_lookup_writes_the_same_in_fewer_steps() -> None:
    plain, drafting = (Counted(network_of(random_model())) for _ in range(2))
    prompt = [5, 6, 7, 8, 9, 10] * 6
    expected = write(Engine(plain, stop_ids=[]), prompt, max_new_tokens=120)  # type: ignore[arg-type]
    engine = Engine(drafting, stop_ids=[], prompt_lookup=True)  # type: ignore[arg-type]
    assert write(engine, prompt, max_new_tokens=120) == expected
    assert drafting.steps < plain.steps


def test_samples_of_one_prompt_share_their_steps(wide_network: Network) -> None:
    counted = Counted(wide_network)
    engine = Engine(counted, stop_ids=[])  # type: ignore[arg-type]
    given: dict[str, Any] = {"max_new_tokens": 50, "params": SAMPLED}
    with held(wide_network):
        streams = [engine.submit(PROMPT, seed=seed, **given) for seed in range(4)]
    assert [len(list(stream)) for stream in streams] == [50] * 4
    assert counted.steps < 100  # 200 one after the other


@pytest.mark.parametrize("prompt_lookup", [False, True])
def test_prompts_that_come_again_and_again_are_continued_as_at_first(
    network: Network, wide_network: Network, prompt_lookup: bool
) -> None:
    chance = random.Random(3)
    begin = [chance.randrange(50) for _ in range(3 * CHUNK)]
    prompts = [begin[:length] for length in (20, CHUNK, CHUNK + 1, 200, 2 * CHUNK + 40)]
    alone = Engine(network_of(random_model()), stop_ids=[])
    given: dict[str, Any] = {"max_new_tokens": 60, "params": GREEDY}
    texts = [[choice.id for choice in alone.submit(ids, **given)] for ids in prompts]
    prompts += [
        [*ids, *text[:written]]
        for ids, text in zip(prompts, texts, strict=True)
        for written in (1, 17, 59)
    ]
    jobs = []
    for seed in range(3 * len(prompts)):
        ids = chance.choice(prompts)
        jobs.append({"prompt_ids": ids, "max_new_tokens": 9, "params": SAMPLED, "seed": seed})
    expected = []
    for job in jobs:
        with Engine(network, stop_ids=[]) as fresh:  # with nothing in its cache
            expected.append([choice.id for choice in fresh.submit(**job)])
    beside = Engine(wide_network, stop_ids=[], prompt_lookup=prompt_lookup)
    assert run_beside(beside, jobs, threads=4) == expected
    assert run_beside(beside, jobs, threads=1) == expected


# ---- Coming and going ----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_every_slot_comes_back_after_random_cancels(wide_network: Network, count: int) -> None:
    counted = Counted(wide_network)
    engine = Engine(counted, stop_ids=[7])  # type: ignore[arg-type]
    chance = random.Random(0)
    open_requests: list[Any] = []
    for job in jobs(count, seed=1):
        open_requests.append(engine.submit(**job))
        while len(open_requests) > 8:
            request = open_requests.pop(chance.randrange(len(open_requests)))
            for _ in range(chance.randrange(3)):
                next(request, None)
            request.cancel()
            request.cancel()
            assert next(request, None) is None
    for request in open_requests:
        request.cancel()
    # All slots are free again: as many texts as there are slots run in as many steps as one.
    before = counted.steps
    streams = [engine.submit(PROMPT, max_new_tokens=50, params=GREEDY) for _ in range(5)]
    written = [[choice.id for choice in stream] for stream in streams]
    assert counted.steps - before < 100
    engine.close()
    assert written == [write(Engine(wide_network, stop_ids=[7]), max_new_tokens=50)] * 5


def test_cancelled_neighbours_change_nothing(wide_network: Network) -> None:
    engine = Engine(wide_network, stop_ids=[])
    expected = write(engine, params=SAMPLED, seed=3)
    request = engine.submit(PROMPT, max_new_tokens=20, params=SAMPLED, seed=3)
    ids = []
    for number, job in enumerate(jobs(20)):
        other = engine.submit(**job)
        ids.append(next(request).id)
        if number % 2:
            other.cancel()
    assert ids == expected


def test_the_queue_has_a_bound_and_cancelled_requests_leave_it(network: Network) -> None:
    engine = Engine(network, stop_ids=[], max_waiting=2)
    given: dict[str, Any] = {"max_new_tokens": 5, "params": GREEDY}
    with held(network) as hold:
        running = engine.submit(PROMPT, **given)
        hold.reached.wait()
        waiting = [engine.submit(PROMPT, **given) for _ in range(2)]
        with pytest.raises(QueueFullError, match="2 requests are waiting"):
            engine.submit(PROMPT, **given)
        waiting.pop().cancel()
        waiting.append(engine.submit(PROMPT, **given))
    assert [len(list(stream)) for stream in [running, *waiting]] == [5, 5, 5]


def test_requests_that_free_slots_will_take_do_not_wait(wide_network: Network) -> None:
    engine = Engine(wide_network, stop_ids=[], max_waiting=2)
    given: dict[str, Any] = {"max_new_tokens": 5, "params": GREEDY}
    with held(wide_network) as hold:
        running = engine.submit(PROMPT, **given)
        hold.reached.wait()
        # Of five slots four are free, but no step begins that would give them out.
        others = [engine.submit(PROMPT, **given) for _ in range(4 + 2)]
        with pytest.raises(QueueFullError, match="2 requests are waiting"):
            engine.submit(PROMPT, **given)
    assert [len(list(stream)) for stream in [running, *others]] == [5] * 7


def test_a_text_that_nobody_holds_any_more_leaves_the_engine(network: Network) -> None:
    counted = Counted(network)
    engine = Engine(counted, stop_ids=[])  # type: ignore[arg-type]
    with held(counted) as hold:
        stream = engine.submit(PROMPT, max_new_tokens=390, params=GREEDY)
        assert hold.reached.wait(60)
        del stream
    assert len(write(engine)) == 20  # the only slot is free again
    assert counted.steps < 50


def test_a_closed_engine_tells_whoever_waits(network: Network) -> None:
    engine = Engine(network, stop_ids=[])
    with held(network) as hold:
        streams = [engine.submit(PROMPT, max_new_tokens=50, params=GREEDY) for _ in range(3)]
        threading.Timer(0.05, hold.released.set).start()
        engine.close()
    for stream in streams:
        with pytest.raises(GenerationError, match="closed"):
            list(stream)
    with pytest.raises(GenerationError, match="closed"):
        engine.submit(PROMPT, max_new_tokens=5, params=GREEDY)
    engine.close()
    assert len(write(Engine(network, stop_ids=[]))) == 20


def test_one_network_runs_in_one_engine_at_a_time(network: Network) -> None:
    engine = Engine(network, stop_ids=[])
    with pytest.raises(GenerationError, match="another engine"):
        Engine(network, stop_ids=[])
    assert len(write(engine)) == 20


def test_broken_scores_end_one_request_only(wide_network: Network) -> None:
    class Poisoned:
        def __getattr__(self, name: str) -> Any:
            return getattr(wide_network, name)

        def decode(self, tokens: Any, num_without_logits: int = 0) -> Any:
            scores = np.array(wide_network.decode(tokens, num_without_logits))
            for row, token in enumerate(tokens[num_without_logits:]):
                if token.id == 49:
                    scores[row] = np.nan
            return scores

    engine = Engine(Poisoned(), stop_ids=[])  # type: ignore[arg-type]
    expected = write(engine)
    bad = engine.submit([49], max_new_tokens=5, params=GREEDY)
    good = engine.submit(PROMPT, max_new_tokens=20, params=GREEDY)
    with pytest.raises(GenerationError, match="nan"):
        next(bad)
    assert [choice.id for choice in good] == expected


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_text_that_overflows_spoils_no_later_text_of_its_slot(device: str) -> None:
    model = random_model(tie_word_embeddings=False)
    with torch.no_grad():
        model.gpt_neox_japanese.embed_in.weight[7] *= 1e6  # more than float16 holds
    healthy = SamplingParams(temperature=0, logit_bias={7: -math.inf})
    network = network_of(model, "tensors", dtype="float16", device=device, slots=2)
    with Engine(network, stop_ids=[]) as engine:
        # What is read of every slot is as long as the longest text.
        longest = engine.submit(list(range(8, 48)), max_new_tokens=300, params=healthy)
        next(longest)
        expected = write(engine, params=healthy)
        with pytest.raises(GenerationError, match="nan"):
            write(engine, [7] * 40)
        assert write(engine, params=healthy) == expected
        longest.cancel()


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt()])
def test_a_failed_step_ends_what_runs_and_the_engine_goes_on(
    network: Network, error: BaseException
) -> None:
    class Failing:
        armed = False

        def __getattr__(self, name: str) -> Any:
            return getattr(network, name)

        def prefill(self, *arguments: Any, **options: Any) -> Any:
            logits = network.prefill(*arguments, **options)
            if self.armed:
                self.armed = False
                raise error
            return logits

    failing = Failing()
    engine = Engine(failing, stop_ids=[])  # type: ignore[arg-type]
    prompt = [5, 6, 7] * CHUNK
    expected = write(engine, prompt)
    failing.armed = True
    stream = engine.submit([1, *prompt], max_new_tokens=5, params=GREEDY)
    for _ in range(2):
        with pytest.raises(GenerationError, match=type(error).__name__):
            next(stream)
    assert write(engine, prompt) == expected
