"""Lists of prompts: what is written for each, and how the engine's queue takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpt_neox_japanese import TextGenerator
from gpt_neox_japanese.errors import GenerationError, QueueFullError
from gpt_neox_japanese.inference.sampling.sampler import SamplingParams
from gpt_neox_japanese.inference.scheduler.engine import Engine
from gpt_neox_japanese.tokenizer.codec import Codec
from tests.inference.networks import held, network_of, random_model
from tests.tokenizer.small import vocabulary

CODEC = Codec(vocabulary(["吾輩", "猫", "は", "。"]), legacy=False)
GREEDY: dict[str, Any] = {"max_new_tokens": 12, "temperature": 0}


def test_a_list_of_prompts_gives_a_list_of_texts(checkpoint: Path) -> None:
    prompts = ["吾輩は", "猫は", "。", "吾輩は"]
    with TextGenerator.from_pretrained(checkpoint, slots=3) as ours:
        alone = [ours.generate(prompt, **GREEDY) for prompt in prompts]
        assert ours.generate(prompts, **GREEDY) == alone
        assert ours.generate(tuple(prompts), **GREEDY) == alone  # type: ignore[call-overload]
        assert ours.generate([], **GREEDY) == []
        seeded = [ours.generate(p, max_new_tokens=9, seed=5 + n) for n, p in enumerate(prompts)]
        assert ours.generate(prompts, max_new_tokens=9, seed=5) == seeded


def test_details_of_many_prompts_are_a_list_for_each(checkpoint: Path) -> None:
    with TextGenerator.from_pretrained(checkpoint) as ours:
        found = ours.generate_details(
            ["猫", "吾輩"], num_return_sequences=2, seed=3, max_new_tokens=9
        )
        assert [len(each) for each in found] == [2, 2]
        assert found[1][0].text == ours.generate("吾輩", seed=5, max_new_tokens=9)


def test_more_prompts_than_the_queue_holds_are_written(checkpoint: Path) -> None:
    with TextGenerator.from_pretrained(checkpoint) as ours:
        texts = ours.generate(["猫"] * 1200, max_new_tokens=1, temperature=0)
        assert len(texts) == 1200
        assert len(set(texts)) == 1


def test_a_list_waits_for_itself_where_the_queue_is_full() -> None:
    network = network_of(random_model(vocab_size=len(CODEC)), slots=2)
    with Engine(network, stop_ids=[], max_waiting=3) as engine:
        ours = TextGenerator(CODEC, engine, SamplingParams())
        texts = ours.generate(["猫"] * 20, max_new_tokens=2, seed=7)
        assert texts == [ours.generate("猫", max_new_tokens=2, seed=7 + i) for i in range(20)]
        with held(network) as hold:
            others = [ours.stream_details("猫")]
            hold.reached.wait()
            others += [ours.stream_details("猫") for _ in range(4)]
            with pytest.raises(QueueFullError):
                ours.generate(["猫"] * 2)
            for stream in others:
                stream.close()


@pytest.mark.parametrize("bad", ["", "猫" * 5000])
def test_a_prompt_of_many_that_cannot_be_read_is_told_before_anything_is_written(
    checkpoint: Path, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TextGenerator.from_pretrained(checkpoint) as ours:
        monkeypatch.setattr(ours.engine, "submit", lambda *_, **__: pytest.fail("it was begun"))
        with pytest.raises(GenerationError, match="the prompt"):
            ours.generate(["猫"] * 600 + [bad], max_new_tokens=2)


def test_seeds_of_several_texts_begin_again_after_the_largest(checkpoint: Path) -> None:
    with TextGenerator.from_pretrained(checkpoint) as ours:
        given: dict[str, Any] = {"max_new_tokens": 15, "temperature": 2.0}
        texts = ours.generate(["猫"] * 3, seed=2**64 - 1, **given)
        assert texts[1:] == [ours.generate("猫", seed=seed, **given) for seed in (0, 1)]
