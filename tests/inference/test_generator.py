from __future__ import annotations

import asyncio
import copy
import doctest
import pickle
import re
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_neox_japanese import (
    GPTNeoXJapaneseConfig,
    TextGenerator,
)
from gpt_neox_japanese.errors import CheckpointError, GenerationError
from gpt_neox_japanese.inference.loading.hparams import HParams
from gpt_neox_japanese.inference.loading.load import default_slots
from gpt_neox_japanese.inference.outputs import Completion
from gpt_neox_japanese.inference.sampling.sampler import SamplingParams
from gpt_neox_japanese.tokenizer.codec import Codec
from tests.inference.recorded import Recorded
from tests.tokenizer.small import vocabulary

CODEC = Codec(vocabulary(["吾輩", "猫", "は", "。"]), legacy=False)
IDS = CODEC.vocabulary.ids


def generator(ids: Sequence[int]) -> tuple[TextGenerator, Recorded]:
    engine = Recorded(ids)
    return TextGenerator(CODEC, engine, SamplingParams(top_k=7)), engine


def written(ids: Sequence[int], **given: Any) -> list[str]:
    return list(generator(ids)[0].stream("猫", **given))


def details(ids: Sequence[int], **given: Any) -> Completion:
    (completion,) = generator(ids)[0].generate_details("猫", **given)
    return completion


def test_pieces_are_whole_characters() -> None:
    assert written(CODEC.encode("猫は한 。")) == ["猫", "は", "한", " ", "。"]


def test_bytes_that_form_no_character_are_not_shown() -> None:
    half = CODEC.encode("한")[:2]
    assert "".join(written([*half, 1, *half])) == "猫"


def test_marks_of_the_training_data_are_not_shown() -> None:
    ids = [IDS[mark] for mark in ("<|startoftext|>", "<|nottoken|>")]
    assert "".join(written([1, *ids, 2])) == "猫は"


def test_prompt_cannot_write_control_tokens() -> None:
    ours, engine = generator([])
    ours.generate("<|endoftext|>")
    assert IDS["<|endoftext|>"] not in engine.prompts[0]


@pytest.mark.parametrize("kind", [iter, set, np.array])
def test_every_text_of_a_call_ends_before_its_stop_strings(
    kind: Callable[[list[str]], Any],
) -> None:
    ours, _ = generator(CODEC.encode("猫は吾輩。猫"))
    assert ours.generate(["猫"] * 3, stop=kind(["は吾", "。"])) == ["猫"] * 3
    found = ours.generate_details("猫", num_return_sequences=2, stop=kind(["。", "吾輩"]))
    assert [each.text for each in found] == ["猫は"] * 2
    assert "".join(ours.stream("猫", stop=kind(["。"]))) == "猫は吾輩"


@pytest.mark.parametrize("stop", [3, None, np.array("。"), [""], ["。", 3]])
def test_what_is_no_list_of_stop_strings_is_refused(stop: Any) -> None:
    ours, _ = generator([])
    with pytest.raises(GenerationError, match="stop"):
        ours.generate("猫", stop=stop)


def test_stop_string_may_span_tokens_and_frees_the_engine() -> None:
    ids = CODEC.encode("猫は吾輩。猫")
    assert "".join(written(ids, stop="は吾")) == "猫"
    ours, engine = generator(ids)
    assert ours.generate("猫", stop=("。", "吾輩")) == "猫は"
    assert engine.streams[0].taken == 3
    assert engine.streams[0].cancelled


def test_an_unfinished_sentence_is_dropped_where_asked() -> None:
    ids = CODEC.encode("吾輩は猫。猫は")
    assert written(ids, end_at_sentence=True) == ["吾輩は猫。"]
    completion = details(ids, end_at_sentence=True)
    assert (completion.text, completion.finish_reason) == ("吾輩は猫。", "length")
    assert completion.token_ids == tuple(ids)
    assert completion.offsets == ((0, 2), (2, 3), (3, 4), (4, 5), (5, 5), (5, 5))
    assert details(ids).text == "吾輩は猫。猫は"


def test_brackets_are_closed_behind_the_last_sentence() -> None:
    ids = CODEC.encode("「猫。猫は")
    completion = details(ids, end_at_sentence=True, echo=True)
    assert completion.text == "猫「猫。」"
    assert completion.offsets[-2:] == ((4, 4), (4, 4))
    ours, _ = generator(CODEC.encode("猫。猫は"))
    assert ours.generate("「", end_at_sentence=True) == "猫。」"
    assert ours.generate(CODEC.encode("「"), end_at_sentence=True) == "猫。」"


def test_a_stop_string_ends_an_unfinished_sentence() -> None:
    ids = CODEC.encode("猫。猫は吾輩")
    assert details(ids, end_at_sentence=True, stop="吾").text == "猫。猫は"


def test_a_stop_string_in_the_prompt_does_not_stop() -> None:
    assert written([2, 3], stop="猫", echo=True) == ["猫", "は", "。"]


def test_echo_puts_the_prompt_first() -> None:
    assert "".join(written([2, 3], echo=True)) == "猫は。"
    completion = details([2, 3], echo=True)
    assert completion.text == "猫は。"
    assert completion.offsets == ((1, 2), (2, 3))


def test_offsets_say_where_each_token_stands() -> None:
    ids = CODEC.encode("吾輩は한👍")
    completion = details(ids)
    assert completion.text == "吾輩は한👍"
    assert completion.token_ids == tuple(ids)
    assert completion.offsets == ((0, 2), (2, 3), (3, 4), (3, 4), (3, 4), (4, 5))


def test_tokens_without_text_stand_between_those_with() -> None:
    half = CODEC.encode("한")[:2]
    ids = [1, *half, *CODEC.encode("한"), IDS["<|separator|>"], 2, half[0]]
    completion = details(ids)
    assert completion.text == "猫한は"
    assert completion.offsets == (
        *((0, 1), (1, 1), (1, 1), (1, 2), (1, 2), (1, 2), (2, 2), (2, 3), (3, 3)),
    )


def test_offsets_end_with_the_text_at_a_stop_string() -> None:
    completion = details([1, 0, 2, 3, 1], stop="輩は")
    assert completion.text == "猫吾"
    assert completion.token_ids == (1, 0, 2)
    assert completion.offsets == ((0, 1), (1, 2), (2, 2))
    assert completion.finish_reason == "stop"


@given(
    st.lists(st.integers(0, len(IDS) - 1) | st.sampled_from(CODEC.encode("한글"))),
    st.lists(st.sampled_from(["猫", "は。", "吾", "글", " 猫"]), max_size=2),
    st.booleans(),
)
def test_stream_and_whole_agree_whatever_is_written(
    ids: list[int], stop: list[str], echo: bool
) -> None:
    completion = details(ids, stop=stop, echo=echo)
    assert "".join(written(ids, stop=stop, echo=echo)) == completion.text
    assert list(completion.token_ids) == ids[: len(completion.token_ids)]
    assert len(completion.offsets) == len(completion.token_ids)
    place = len("猫") if echo else 0
    for start, end in completion.offsets:
        assert start <= end <= len(completion.text)
        assert start in (place, place - 1)  # nothing between tokens is left out
        place = max(place, end)
    assert place == len(completion.text)
    if completion.finish_reason == "length":
        assert list(completion.token_ids) == ids


def test_tokens_come_out_with_their_text() -> None:
    ours, _ = generator(CODEC.encode("猫は한。"))
    with ours.stream_details("猫", stop="は吾") as stream:
        pieces = [(p.text, len(p.tokens), p.finish_reason) for p in stream]
    assert pieces == [("猫", 1, None), ("は한", 4, None), ("。", 1, None), ("", 0, "length")]


def test_logprobs_come_where_asked_for() -> None:
    completion = details([1, 2], logprobs=1)
    assert completion.logprobs == (-0.5, -0.5)
    assert completion.top_logprobs == ({1: -0.5}, {2: -0.5})
    assert details([1, 2]).logprobs is None


def test_each_of_several_continuations_has_its_seed() -> None:
    ours, engine = generator([1])
    assert len(ours.generate_details("猫", num_return_sequences=3, seed=5)) == 3
    assert [asked["seed"] for asked in engine.asked] == [5, 6, 7]
    ours.generate_details("猫", num_return_sequences=2)
    assert [asked["seed"] for asked in engine.asked[3:]] == [None, None]
    ours.generate_details(["猫", "吾輩"], num_return_sequences=2, seed=5)  # on to the next prompt
    assert [asked["seed"] for asked in engine.asked[5:]] == [5, 6, 7, 8]
    with pytest.raises(GenerationError, match="num_return_sequences is 0"):
        ours.generate_details("猫", num_return_sequences=0)


def test_a_prompt_of_several_continuations_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, engine = generator(CODEC.encode("猫。吾輩"))
    encoded: list[str] = []

    def encode(text: str) -> list[int]:
        encoded.append(text)
        return [1]

    monkeypatch.setattr(ours, "codec", copy.copy(CODEC))
    monkeypatch.setattr(ours.codec, "encode", encode)
    monkeypatch.setattr(ours.codec, "encode_with_offsets", encode)
    given: dict[str, Any] = {"echo": True, "end_at_sentence": True}
    found = ours.generate_details(["猫は", "は"], num_return_sequences=3, **given)
    assert encoded == ["猫は", "は"]
    assert [[each.text for each in some] for some in found] == [["猫は猫。"] * 3, ["は猫。"] * 3]
    assert engine.prompts == [[1]] * 6


def test_keywords_change_single_options() -> None:
    ours, engine = generator([1])
    ours.generate("猫", temperature=0.5)
    ours.generate("猫", sampling_params=SamplingParams(top_p=0.5), min_new_tokens=2)
    assert [asked["params"] for asked in engine.asked] == [
        SamplingParams(top_k=7, temperature=0.5),
        SamplingParams(top_p=0.5, min_new_tokens=2),
    ]
    with pytest.raises(GenerationError, match="top_p is 3"):
        ours.stream("猫", top_p=3)
    with pytest.raises(TypeError, match="temprature"):
        ours.stream("猫", temprature=1)  # type: ignore[call-arg]


def test_a_stream_that_is_left_alone_is_dropped() -> None:
    ours, engine = generator([1] * 100)
    never_read = ours.stream("猫")
    begun = ours.stream("猫")
    assert next(begun) == "猫"
    held = [weakref.ref(engine.streams.pop()) for _ in range(2)]  # dropped streams are cancelled
    del never_read, begun
    assert [stream() for stream in held] == [None, None]


def test_a_closed_stream_is_cancelled_and_empty() -> None:
    ours, engine = generator([1] * 100)
    closed = ours.stream_details("猫")
    closed.close()
    assert list(closed) == []
    assert engine.streams[0].cancelled


def test_an_error_while_writing_reaches_the_reader_and_frees_the_engine() -> None:
    ours, engine = generator([1, 10**6])
    stream = ours.stream_details("猫")
    next(stream)
    with pytest.raises(ValueError, match="1000000"):
        next(stream)
    assert engine.streams[0].cancelled
    with pytest.raises(GenerationError, match="1000000"):
        next(stream)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prompt": None}, "the prompt is None"),
        ({"prompt": 7}, "the prompt is 7"),
        ({"prompt": b"a"}, "the prompt is b'a'"),
        ({"stop": ("",)}, "stop"),
        ({"stop": None}, "stop is None"),
        ({"stop": 3}, "stop is 3"),
        ({"stop": [3]}, "stop string is 3"),
        ({"echo": "no"}, "echo is 'no'"),
        ({"end_at_sentence": 1}, "end_at_sentence is 1"),
        ({"sampling_params": {"top_k": 3}}, "sampling_params is"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"max_new_tokens": 1.5}, "max_new_tokens is 1.5"),
        ({"max_new_tokens": float("nan")}, "max_new_tokens is nan"),
        ({"num_return_sequences": 2.5}, "num_return_sequences is 2.5"),
        ({"num_return_sequences": 10**9}, "num_return_sequences is 1000000000"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(
    checkpoint: Path, given: dict[str, Any], said: str
) -> None:
    with (
        TextGenerator.load(checkpoint) as ours,
        pytest.raises(GenerationError, match=re.escape(said)),
    ):
        ours.generate_details(**{"prompt": "猫", **given})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"slots": 0}, "slots is 0"),
        ({"slots": 1.5}, "slots is 1.5"),
        ({"slots": "8"}, "slots is '8'"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": 2.0}, "threads is 2.0"),
        ({"threads": 100_000}, "threads is 100000"),
        ({"prompt_lookup": 1}, "prompt_lookup is 1"),
        ({"device": None}, "device is None"),
        ({"dtype": 3}, "dtype '3'"),
        ({"model": 3}, "the model is 3"),
    ],
)
def test_arguments_of_load_that_cannot_be_used_are_named(
    checkpoint: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(CheckpointError, match=re.escape(said)):
        TextGenerator.from_pretrained(**{"model": checkpoint, **given})


def test_a_checkpoint_writes_the_same_text_for_the_same_seed(checkpoint: Path) -> None:
    ours = TextGenerator.load(checkpoint)
    first = ours.generate("吾輩は猫", max_new_tokens=20, seed=3)
    assert first
    assert ours.generate("吾輩は猫", max_new_tokens=20, seed=3) == first
    assert "".join(ours.stream("吾輩は猫", max_new_tokens=20, seed=3)) == first
    second, third = ours.generate_details(
        "吾輩は猫", num_return_sequences=2, max_new_tokens=20, seed=2, logprobs=2
    )
    assert third.text == first
    assert second.text != first
    assert third.logprobs is not None
    assert all(logprob < 0 for logprob in third.logprobs)


def test_a_text_that_ends_for_lack_of_room_says_so(checkpoint: Path) -> None:
    with TextGenerator.load(checkpoint) as ours:
        with pytest.warns(UserWarning, match="context is full.*max_new_tokens=1500"):
            text = ours.generate("猫", max_new_tokens=1500, temperature=0)
        assert ours.generate("猫", max_new_tokens=47, temperature=0) == text
        with ours.stream_details("猫", max_new_tokens=48, temperature=0) as stream:
            assert list(stream)[-1].finish_reason == "length"
            assert stream.context_is_full


def test_the_warning_names_the_line_that_asked(checkpoint: Path) -> None:
    options: dict[str, Any] = {"max_new_tokens": 1500, "temperature": 0}

    async def read() -> None:
        async for _ in ours.astream("猫", **options):
            pass

    with TextGenerator.load(checkpoint) as ours:
        ways: list[Callable[[], object]] = [
            lambda: ours.generate("猫", **options),
            lambda: ours.generate(["猫", "猫"], **options),
            lambda: list(ours.stream("猫", **options)),
            lambda: asyncio.run(read()),
        ]
        for way in ways:
            with pytest.warns(UserWarning, match="context is full") as warned:
                way()
            assert {each.filename for each in warned} == {__file__}


@pytest.mark.parametrize(
    ("platform", "hidden", "expected"),
    [
        ("linux", 64, 32),
        ("linux", 2560, 8),
        ("darwin", 2560, 8),
        ("win32", 64, 32),
        ("win32", 256, 16),
        ("win32", 2560, 1),
    ],
)
def test_a_small_model_writes_more_texts_at_once(
    monkeypatch: pytest.MonkeyPatch, platform: str, hidden: int, expected: int
) -> None:
    config = {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": hidden}
    hparams = HParams.from_config(GPTNeoXJapaneseConfig(**config).to_dict())
    monkeypatch.setattr("sys.platform", platform)
    assert default_slots(hparams, bytes_per_value=4) == expected


@pytest.mark.parametrize("device", ["abacus", "cpu:x", "cuda:99"])
def test_device_that_is_not_there_is_named(checkpoint: Path, device: str) -> None:
    with pytest.raises(CheckpointError, match=device):
        TextGenerator.load(checkpoint, device=device)


# ---- Many prompts, ids ---------------------------------------------------------------------------

GREEDY: dict[str, Any] = {"max_new_tokens": 12, "temperature": 0}


def test_one_bad_prompt_among_many_is_told_before_anything_is_written() -> None:
    ours, engine = generator([1])
    with pytest.raises(GenerationError, match="the prompt is 7"):
        ours.generate(["猫", 7])  # type: ignore[list-item]
    assert engine.streams == []


def test_a_text_that_stops_at_once_has_no_logprobs_rather_than_none(checkpoint: Path) -> None:
    with TextGenerator.from_pretrained(checkpoint) as ours:
        given: dict[str, Any] = {"logit_bias": {ours.codec.eot_token: 1000}}
        [asked] = ours.generate_details("猫", logprobs=1, **given)
        assert (asked.token_ids, asked.logprobs, asked.top_logprobs) == ((), (), ())
        [not_asked] = ours.generate_details("猫", **given)
        assert not_asked.logprobs is None


def test_token_ids_are_prompts(checkpoint: Path) -> None:
    with TextGenerator.from_pretrained(checkpoint) as ours:
        ids = ours.codec.encode("吾輩は猫")
        expected = ours.generate("吾輩は猫", **GREEDY)
        assert ours.generate(ids, **GREEDY) == expected
        assert ours.generate(np.array(ids), **GREEDY) == expected
        assert ours.generate([ids, ids], **GREEDY) == [expected] * 2
        assert ours.generate(ids, echo=True, **GREEDY) == "吾輩は猫" + expected
        for bad in ([len(ours.codec)], [-1], [1.5], np.array([[1]])):
            with pytest.raises(GenerationError, match="the prompt holds"):
                ours.generate(bad, **GREEDY)


def test_a_generator_says_what_it_is(checkpoint: Path) -> None:
    with TextGenerator.from_pretrained(checkpoint, threads=1) as ours:
        assert repr(ours).startswith("TextGenerator(")
        assert "float32 weights, 1 threads" in repr(ours)


def test_a_generator_opens_its_model_again_where_it_is_unpickled(checkpoint: Path) -> None:
    with TextGenerator.from_pretrained(checkpoint) as ours:
        again = pickle.loads(pickle.dumps(ours))
        assert again.generate("猫は", **GREEDY) == ours.generate("猫は", **GREEDY)
        again.close()
    with pytest.raises(GenerationError, match="from_pretrained"):
        pickle.dumps(generator([1])[0])


def test_the_older_name_opens_the_same(checkpoint: Path) -> None:
    with TextGenerator.load(checkpoint) as ours, TextGenerator.from_pretrained(checkpoint) as same:
        assert ours.generate("猫は", **GREEDY) == same.generate("猫は", **GREEDY)


def test_the_examples_of_the_class_are_true() -> None:
    import gpt_neox_japanese.inference.generator as module

    failed, attempted = doctest.testmod(module)
    assert attempted >= 4
    assert failed == 0
