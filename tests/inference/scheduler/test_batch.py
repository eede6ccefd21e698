"""Who gets how much of a step."""

from __future__ import annotations

from gpt_neox_japanese.inference.sampling.sampler import Sampler, SamplingParams
from gpt_neox_japanese.inference.scheduler.batch import batches_of
from gpt_neox_japanese.inference.scheduler.request import Request

MAX_ROWS = 32


def request(num_tokens: int, num_computed: int, slot: int) -> Request:
    """A prompt of which some tokens are computed."""
    sampler = Sampler(SamplingParams(), vocab_size=50)
    made = Request([7] * num_tokens, 10, 100, sampler, None)
    made.slot, made.num_computed = slot, num_computed
    return made


def writing(count: int) -> list[Request]:
    return [request(5, 4, slot) for slot in range(count)]


def sizes(running: list[Request]) -> list[list[int]]:
    """How many tokens each batch takes of each of its texts."""
    batches = batches_of(running, MAX_ROWS)
    for batch in batches:
        assert len(batch.tokens) == sum(len(span.ids) for span in batch.spans) <= MAX_ROWS
    return [[len(span.ids) for span in batch.spans] for batch in batches]


def test_every_text_that_is_written_takes_a_token_of_each_step() -> None:
    assert sizes(writing(20)) == [[1] * 20]
    assert sizes(writing(70)) == [[1] * 32, [1] * 32, [1] * 6]


def test_prompts_fill_what_is_left_the_first_first() -> None:
    newcomers = [request(100, 90, 40), request(30, 0, 41), request(9, 0, 42)]
    assert sizes([*writing(12), *newcomers]) == [[1] * 12 + [10, 10]]


def test_newcomers_are_read_however_many_texts_are_written() -> None:
    newcomer = request(100, 0, 40)
    assert sizes([*writing(32), newcomer]) == [[1] * 32, [32]]
    assert sizes([*writing(30), newcomer]) == [[1] * 30, [32]]
    assert sizes([*writing(30), request(2, 0, 40)]) == [[1] * 30 + [2]]


def test_newcomers_hold_written_texts_up_by_one_batch_at_most() -> None:
    newcomers = [request(127, 0, slot) for slot in range(32, 60)]
    assert sizes([*writing(32), *newcomers]) == [[1] * 32, [32]]


def test_only_the_last_token_of_a_prompt_is_scored() -> None:
    (batch,) = batches_of([request(100, 90, 0), *writing(3)], MAX_ROWS)
    assert batch.num_without_logits == 9
    assert [token.position for token in batch.tokens] == [*range(90, 99), 4, 4, 4, 99]
