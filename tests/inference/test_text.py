from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_neox_japanese import TextGenerator
from gpt_neox_japanese.errors import CheckpointError, GenerationError
from gpt_neox_japanese.inference.sampling import SamplingOptions
from gpt_neox_japanese.inference.text import until_stop
from gpt_neox_japanese.tokenizer.codec import Codec
from tests.tokenizer.small import vocabulary


class Recorded:
    """An engine that writes ids given beforehand."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def generate(self, prompt_ids: list[int], **_: object) -> Iterator[int]:
        return iter(self.ids)


CODEC = Codec(vocabulary(["吾輩", "猫", "は", "。"]), legacy=False)


def written(ids: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    generator = TextGenerator(CODEC, Recorded(ids), SamplingOptions())  # type: ignore[arg-type]
    return list(generator.stream("猫", stop=stop))


def test_pieces_are_whole_characters() -> None:
    assert written(CODEC.encode("猫は한 。").tolist()) == ["猫", "は", "한", " ", "。"]


def test_bytes_that_form_no_character_are_not_shown() -> None:
    half = CODEC.encode("한").tolist()[:2]
    assert "".join(written([*half, 1, *half])) == "猫"


def test_marks_of_the_training_data_are_not_shown() -> None:
    ids = [CODEC.vocabulary.ids[mark] for mark in ("<|startoftext|>", "<|nottoken|>")]
    assert "".join(written([1, *ids, 2])) == "猫は"


def test_prompt_cannot_write_control_tokens() -> None:
    prompts = []

    class Spy(Recorded):
        def generate(self, prompt_ids: list[int], **_: object) -> Iterator[int]:
            prompts.append(prompt_ids)
            return iter([])

    list(TextGenerator(CODEC, Spy([]), SamplingOptions()).stream("<|endoftext|>"))  # type: ignore[arg-type]
    assert CODEC.vocabulary.ids["<|endoftext|>"] not in prompts[0]


def test_stop_string_may_span_tokens() -> None:
    ids = CODEC.encode("猫は吾輩。猫").tolist()
    assert "".join(written(ids, stop=("は吾",))) == "猫"
    assert "".join(written(ids, stop=("。", "吾輩"))) == "猫は"


@given(
    st.lists(st.text("ab", max_size=3), max_size=8),
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=3),
)
def test_stopping_cuts_exactly_before_the_first_stop_string(
    pieces: list[str], stop: list[str]
) -> None:
    text = "".join(pieces)
    # The first stop string is the one that is complete first, as a reader would see it.
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(s) for s in stop)]
    if ends:
        seen = text[: ends[0]]
        expected = min((seen[: seen.find(s)] for s in stop if s in seen), key=len)
    else:
        expected = text
    assert "".join(until_stop(iter(text), stop)) == expected
    if not stop:
        assert "".join(until_stop(pieces, stop)) == text


def test_text_is_not_held_back_longer_than_needed() -> None:
    assert list(until_stop(["a", "b", "c"], ["bx"])) == ["a", "bc"]


def test_empty_stop_string_is_refused() -> None:
    with pytest.raises(GenerationError, match="stop"):
        written([1], stop=("",))


def test_a_checkpoint_writes_the_same_text_for_the_same_seed(checkpoint: Path) -> None:
    generator = TextGenerator.load(checkpoint)
    first = generator.generate("吾輩は猫", max_new_tokens=20, seed=3)
    assert first
    assert generator.generate("吾輩は猫", max_new_tokens=20, seed=3) == first
    assert "".join(generator.stream("吾輩は猫", max_new_tokens=20, seed=3)) == first


@pytest.mark.parametrize("device", ["abacus", "cpu:x", "cuda:99"])
def test_device_that_is_not_there_is_named(checkpoint: Path, device: str) -> None:
    with pytest.raises(CheckpointError, match=device):
        TextGenerator.load(checkpoint, device=device)
