"""Scores of texts and prompts, and where their tokens stand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt_neox_japanese import GPTNeoXJapaneseForCausalLM, TextGenerator
from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.detokenizer import place_tokens
from tests.inference.test_generator import CODEC, GREEDY, IDS


def test_scores_of_texts_are_those_of_the_model(checkpoint: Path) -> None:
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(checkpoint).eval()
    texts = ["吾輩は猫", "猫は、① 吾輩。한", "猫"]
    with TextGenerator.from_pretrained(checkpoint) as ours:
        scores = ours.score(texts, top_logprobs=2)
        assert scores[1] == ours.score(texts[1], top_logprobs=2)
        assert ours.score([ours.codec.encode(text) for text in texts[:1]])[0].text == "吾輩は猫"
        for text, score in zip(texts, scores, strict=True):
            ids = ours.codec.encode(text)
            with torch.inference_mode():
                logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            chosen = [float(row[token]) for row, token in zip(logprobs, ids[1:], strict=False)]
            assert score.text == text
            assert score.token_ids == tuple(ids)
            assert score.logprobs[0] is None
            assert score.logprobs[1:] == pytest.approx(chosen, abs=1e-4)
            assert score.total_logprob == pytest.approx(sum(chosen), abs=1e-3)
            assert [len(top) for top in score.top_logprobs] == [0] + [2] * (len(ids) - 1)
            offsets = ours.codec.encode_with_offsets(text).offsets.tolist()
            assert [list(each) for each in score.offsets] == offsets
        with pytest.raises(GenerationError, match="empty"):
            ours.score("")


@pytest.mark.parametrize("top_logprobs", [-1, None, 2.5, len(CODEC) + 1])
def test_a_number_of_likeliest_ids_that_is_none_is_refused(
    checkpoint: Path, top_logprobs: Any
) -> None:
    with (
        TextGenerator.from_pretrained(checkpoint) as ours,
        pytest.raises(GenerationError, match=f"top_logprobs is {top_logprobs}"),
    ):
        ours.score(["猫"], top_logprobs=top_logprobs)


def test_a_prompt_may_be_scored_before_it_is_continued(checkpoint: Path) -> None:
    with TextGenerator.from_pretrained(checkpoint) as ours:
        expected = ours.generate("吾輩は猫", **GREEDY)
        stream = ours.stream_details("吾輩は猫", prompt_logprobs=0, **GREEDY)
        assert "".join(chunk.text for chunk in stream) == expected
        score = ours.score("吾輩は猫")
        assert tuple(token.logprob for token in stream.prompt_tokens) == score.logprobs
        assert stream.num_prompt_tokens == len(score.token_ids)
        assert ours.stream_details("吾輩は猫", **GREEDY).prompt_tokens == ()


def test_the_stop_id_has_a_place_at_the_end_of_the_text(checkpoint: Path) -> None:
    with TextGenerator.from_pretrained(checkpoint) as ours:
        eos = ours.codec.eot_token
        given: dict[str, Any] = {"max_new_tokens": 9, "logprobs": 1, "echo": True}
        stream = ours.stream_details("猫", logit_bias={eos: 1000}, **given)
        assert "".join(chunk.text for chunk in stream) == "猫"
        token = stream.stop_token
        assert token is not None
        assert (token.id, token.start, token.end) == (eos, 1, 1)
        assert token.logprob == ours.score(["猫", [*ours.codec.encode("猫"), eos]])[1].logprobs[1]
        stopped = ours.stream_details("猫", logit_bias={eos: -1000}, **given)
        assert list(stopped)[-1].finish_reason == "length"
        assert stopped.stop_token is None


def character_sizes(data: bytes) -> Iterator[int]:
    """How many bytes each character of the text was made of, those that form none as U+FFFD."""
    while data:
        try:
            size = len(data.decode()[0].encode())
        except UnicodeDecodeError as error:
            size = error.end if error.start == 0 else len(data[: error.start].decode()[0].encode())
        yield size
        data = data[size:]


@given(
    st.lists(
        st.integers(0, len(CODEC) - 1) | st.sampled_from(CODEC.encode("é한\ufffd\U0001f980猫")),
        max_size=12,
    )
)
def test_a_token_of_ids_stands_for_the_characters_that_its_bytes_are_in(ids: list[int]) -> None:
    pieces = [CODEC.decode_bytes([token_id]) for token_id in ids]
    sizes = list(character_sizes(b"".join(pieces)))
    assert len(sizes) == len(CODEC.decode(ids))
    character = [number for number, size in enumerate(sizes) for _ in range(size)]
    ends = list(itertools.accumulate(map(len, pieces)))
    expected = [
        (character[end - len(piece)], character[end - 1] + 1)
        for piece, end in zip(pieces, ends, strict=True)
    ]
    assert place_tokens(CODEC, ids) == expected


@pytest.mark.parametrize("ids", [CODEC.encode("한"), [*CODEC.encode("한")[:2], IDS["猫"]]])
def test_places_do_not_depend_on_how_long_the_text_before_is(ids: list[int]) -> None:
    places = place_tokens(CODEC, ids)
    for count in (1364, 1365):  # characters of three bytes: about as much as is decoded at once
        found = place_tokens(CODEC, [IDS["猫"]] * count + ids)
        assert found[count:] == [(start + count, end + count) for start, end in places]
