from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.server.api.responses import Completion
from gpt_neox_japanese.server.service import ServedModel
from tests.server.serving import Server, assert_error

CAT = "吾輩は猫である。"


def texts(answer: dict[str, Any]) -> list[str]:
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(answer["choices"])))
    return [choice["text"] for choice in answer["choices"]]


def joined(events: Sequence[dict[str, Any]]) -> dict[int, str]:
    """The text of each choice of a stream."""
    text: dict[int, str] = {}
    for event in events:
        for choice in event["choices"]:
            text[choice["index"]] = text.get(choice["index"], "") + choice["text"]
    return text


def test_text_is_what_the_generator_writes(server: Server, model: ServedModel) -> None:
    answer = server.complete(prompt=CAT, max_tokens=20, seed=7)
    assert texts(answer) == [model.generator.generate(CAT, max_new_tokens=20, seed=7)]
    Completion.model_validate(answer)
    assert answer["model"] == "default"
    assert answer["choices"][0]["finish_reason"] == "length"
    usage = answer["usage"]
    assert usage["prompt_tokens"] == len(model.codec.encode(CAT))
    assert usage["completion_tokens"] == 20
    assert usage["total_tokens"] == usage["prompt_tokens"] + 20


def test_sixteen_tokens_are_written_where_nothing_is_said(server: Server) -> None:
    assert server.complete(prompt=CAT, seed=1)["usage"]["completion_tokens"] == 16
    again = server.complete(prompt=CAT, seed=1, max_tokens=None, temperature=None, n=None)
    assert again["usage"]["completion_tokens"] == 16


def test_prompts_may_be_texts_and_ids(server: Server, model: ServedModel) -> None:
    ids = model.codec.encode(CAT)
    alone = texts(server.complete(prompt=CAT, seed=1, max_tokens=4))
    assert texts(server.complete(prompt=ids, seed=1, max_tokens=4)) == alone
    assert texts(server.complete(prompt=[CAT, CAT], seed=1, max_tokens=4)) == alone * 2
    assert texts(server.complete(prompt=[ids, ids], seed=1, max_tokens=4)) == alone * 2


def test_choices_of_each_prompt_are_those_it_has_alone(server: Server) -> None:
    options = {"seed": 5, "max_tokens": 6, "n": 3}
    both = texts(server.complete(prompt=[CAT, "雨が"], **options))
    assert both[:3] == texts(server.complete(prompt=CAT, **options))
    assert both[3:] == texts(server.complete(prompt="雨が", **options))
    assert len(set(both[:3])) > 1


@pytest.mark.parametrize("seed", [-1, -(2**63), 2**64 - 1])
def test_any_seed_repeats_itself(server: Server, seed: int) -> None:
    first = server.complete(prompt=CAT, seed=seed, n=2)
    assert texts(first) == texts(server.complete(prompt=CAT, seed=seed, n=2))


def test_stream_is_the_same_text(server: Server) -> None:
    options = {"prompt": [CAT, "雨が"], "n": 2, "seed": 3, "max_tokens": 12}
    events = server.stream(**options)
    for event in events:
        Completion.model_validate(event)
    assert list(dict(sorted(joined(events).items())).values()) == texts(server.complete(**options))
    ends = [c["index"] for e in events for c in e["choices"] if c["finish_reason"]]
    assert sorted(ends) == [0, 1, 2, 3]
    assert len({event["id"] for event in events}) == 1


def test_usage_of_a_stream_is_its_last_event_where_asked_for(server: Server) -> None:
    options = {"prompt": CAT, "max_tokens": 3, "seed": 1}
    assert all("usage" not in event for event in server.stream(**options))
    events = server.stream(**options, stream_options={"include_usage": True})
    assert [event["usage"] for event in events[:-1]] == [None] * (len(events) - 1)
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 3


def test_stop_string_ends_the_text_before_it(server: Server) -> None:
    whole = texts(server.complete(prompt=CAT, seed=2, max_tokens=40))[0]
    stop = whole[7:10]  # wherever tokens cut it
    for given in (stop, ["ない文字列🐉", stop]):
        choice = server.complete(prompt=CAT, seed=2, max_tokens=40, stop=given)["choices"][0]
        assert choice["text"] == whole[: whole.index(stop)]
        assert choice["finish_reason"] == "stop"
    assert joined(server.stream(prompt=CAT, seed=2, max_tokens=40, stop=stop)) == {
        0: whole[: whole.index(stop)]
    }


def test_logit_bias_has_keys_of_strings(server: Server, model: ServedModel) -> None:
    [cat] = model.codec.encode("猫")
    answer = server.complete(prompt=CAT, logit_bias={str(cat): 100}, temperature=0, max_tokens=3)
    assert texts(answer) == ["猫猫猫"]
    error = assert_error(
        server.post("/v1/completions", {"prompt": CAT, "logit_bias": {"999999": 1}}), 400, "999999"
    )
    assert error["param"] == "logit_bias"


def test_what_a_request_leaves_out_is_the_checkpoints(server: Server, model: ServedModel) -> None:
    params = model.generator.sampling_params
    written = server.complete(
        prompt=CAT,
        seed=4,
        temperature=params.temperature,
        top_p=params.top_p,
        repetition_penalty=params.repetition_penalty,
    )
    assert texts(written) == texts(server.complete(prompt=CAT, seed=4))
    assert texts(written) != texts(server.complete(prompt=CAT, seed=4, temperature=5))


def test_top_k_of_minus_one_is_all(server: Server) -> None:
    answers = [server.complete(prompt=CAT, seed=4, top_k=k, temperature=2) for k in (-1, 0, 1)]
    assert texts(answers[0]) == texts(answers[1]) != texts(answers[2])


def test_best_of_returns_the_likeliest(server: Server) -> None:
    options = {"prompt": CAT, "seed": 1, "max_tokens": 8}
    every = server.complete(**options, n=6, logprobs=0)["choices"]

    def mean(choice: dict[str, Any]) -> float:
        scores = choice["logprobs"]["token_logprobs"]
        return float(sum(scores) / len(scores))

    ranked = sorted(every, key=mean, reverse=True)
    answer = server.complete(**options, n=2, best_of=6)
    assert texts(answer) == [choice["text"] for choice in ranked[:2]]
    assert answer["choices"][0]["logprobs"] is None
    assert answer["usage"]["completion_tokens"] == 48


def test_logprobs_name_the_chosen_token_among_the_alternatives(server: Server) -> None:
    choice = server.complete(prompt=CAT, seed=1, max_tokens=6, logprobs=3)["choices"][0]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"]
    for name, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert choice["text"].startswith(name, offset)
    for name, own, top in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        assert top[name] == own
        assert 3 <= len(top) <= 4
        assert sorted(top.values(), reverse=True) == list(top.values())


def test_logprobs_of_zero_are_those_of_the_tokens_alone(server: Server) -> None:
    logprobs = server.complete(prompt=CAT, max_tokens=3, logprobs=0)["choices"][0]["logprobs"]
    for name, own, top in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        assert top == {name: own}


def test_logprobs_of_a_stream_are_those_of_the_whole(server: Server) -> None:
    options = {"prompt": CAT, "seed": 1, "max_tokens": 10, "logprobs": 2, "stop": "。"}
    whole = server.complete(**options)["choices"][0]["logprobs"]
    parts = [event["choices"][0]["logprobs"] for event in server.stream(**options)]
    for name, values in whole.items():
        assert [value for part in parts for value in part[name]] == values


def test_bytes_of_a_character_have_names_of_their_own(server: Server, model: ServedModel) -> None:
    han = model.codec.encode("한")
    bias = {str(token_id): 60 for token_id in han}
    choice = server.complete(
        prompt="한국한국한", logit_bias=bias, max_tokens=30, seed=3, logprobs=1, token_details=True
    )["choices"][0]
    names = choice["logprobs"]["tokens"]
    assert set(names) <= {r"bytes:\xed", r"bytes:\x95", r"bytes:\x9c"}
    assert "\ufffd" not in choice["text"]
    details = choice["token_details"]
    assert "".join(token["text"] for token in details) == choice["text"]
    assert [token["bytes"] for token in details] == [[int(name[-2:], 16)] for name in names]


def test_details_of_tokens_cut_the_text(server: Server) -> None:
    options = {"prompt": CAT, "seed": 1, "max_tokens": 20, "logprobs": 4, "token_details": True}
    choice = server.complete(**options)["choices"][0]
    details = choice["token_details"]
    assert "".join(token["text"] for token in details) == choice["text"]
    assert [token["start"] for token in details[1:]] == [token["end"] for token in details[:-1]]
    assert {len(token["top"]) for token in details} == {4}
    for alternative in details[0]["top"]:
        assert bytes(alternative["bytes"]).decode() == alternative["text"]
    streamed = [t for e in server.stream(**options) for t in e["choices"][0]["token_details"]]
    assert streamed == details


def test_names_of_ids_where_asked_for(server: Server, model: ServedModel) -> None:
    choice = server.complete(
        prompt=CAT,
        seed=1,
        logprobs=1,
        return_tokens_as_token_ids=True,
        return_token_ids=True,
        max_tokens=3,
    )["choices"][0]
    assert choice["logprobs"]["tokens"] == [f"token_id:{i}" for i in choice["token_ids"]]
    assert choice["prompt_token_ids"] == model.codec.encode(CAT)
    assert model.codec.decode(choice["token_ids"]) == choice["text"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["猫", 1]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [8000]}, "prompt"),
        ({"prompt": {"text": "猫"}}, "prompt"),
        ({"prompt": "猫", "max_tokens": "16"}, "max_tokens"),
        ({"prompt": "猫", "max_tokens": 1.5}, "max_tokens"),
        ({"prompt": "猫", "max_tokens": True}, "max_tokens"),
        ({"prompt": "猫", "max_tokens": -1}, "max_tokens"),
        ({"prompt": "猫", "max_tokens": 5, "min_tokens": 6}, "min_tokens"),
        ({"prompt": "猫", "min_tokens": 17}, "min_tokens"),
        ({"prompt": "猫", "temperature": "hot"}, "temperature"),
        ({"prompt": "猫", "temperature": -0.1}, "temperature"),
        ({"prompt": "猫", "top_p": 0}, "top_p"),
        ({"prompt": "猫", "top_k": -2}, "top_k"),
        ({"prompt": "猫", "n": 0}, "n"),
        ({"prompt": "猫", "n": 129}, "n"),
        ({"prompt": "猫", "n": 3, "best_of": 2}, "best_of"),
        ({"prompt": "猫", "best_of": 2, "stream": True}, "best_of"),
        ({"prompt": "猫", "stop": ""}, "stop"),
        ({"prompt": "猫", "stop": [""]}, "stop"),
        ({"prompt": "猫", "stop": ["。"] * 17}, "stop"),
        ({"prompt": "猫", "stop": 5}, "stop"),
        ({"prompt": "猫", "seed": 2**64}, "seed"),
        ({"prompt": "猫", "seed": 0.5}, "seed"),
        ({"prompt": "猫", "logprobs": 21}, "logprobs"),
        ({"prompt": "猫", "logprobs": True}, "logprobs"),
        ({"prompt": "猫", "logit_bias": {"猫": 1}}, "logit_bias.猫.[key]"),
        ({"prompt": "猫", "logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"prompt": "猫", "presence_penalty": 2.1}, "presence_penalty"),
        ({"prompt": "猫", "suffix": "犬"}, "suffix"),
        ({"prompt": "猫", "stream": "yes"}, "stream"),
        ({"prompt": "猫", "stream_options": {"include_usage": True}}, "stream_options"),
        ({"prompt": "猫", "echo": 1}, "echo"),
    ],
)
def test_wrong_field_is_named(server: Server, body: dict[str, Any], param: str) -> None:
    error = assert_error(server.post("/v1/completions", body), 400)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param


def test_errors_of_the_engine_are_told_in_the_requests_words(
    server: Server, model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise GenerationError("max_new_tokens is 5; it must be less")

    monkeypatch.setattr(model.generator, "stream_details", refuse)
    error = assert_error(server.post("/v1/completions", {"prompt": CAT}), 400, "max_tokens is 5;")
    assert error["param"] == "max_tokens"


def test_cached_tokens_of_a_prompt_are_counted_once(server: Server) -> None:
    for prompt in (CAT * 30, [CAT * 30, CAT * 45]):  # a chunk is 128 tokens
        body = {"prompt": prompt, "n": 3, "max_tokens": 1}
        server.complete(**body)
        usage = server.complete(**body)["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        assert 0 < cached <= usage["prompt_tokens"]


def test_unknown_fields_are_ignored(server: Server) -> None:
    server.complete(prompt=CAT, max_tokens=1, store=True, metadata={"a": "b"})


def test_unknown_model_is_not_found(server: Server) -> None:
    error = assert_error(
        server.post("/v1/completions", {"prompt": CAT, "model": "gpt-5"}), 404, "gpt-5"
    )
    assert error["code"] == "model_not_found"
    server.complete(prompt=CAT, model="default", max_tokens=1)


def test_prompt_too_long_is_told_in_openais_words(server: Server, model: ServedModel) -> None:
    for prompt in ("猫。" * 1200, "猫" * 50_000, [1] * 1024, ["猫", "犬" * 1200]):
        error = assert_error(server.post("/v1/completions", {"prompt": prompt}), 400, "1023")
        assert error["code"] == "context_length_exceeded"


def test_text_too_long_is_refused_before_it_is_tokenized(
    server: Server, model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(type(model.codec), "encode", never)
    monkeypatch.setattr(type(model.codec), "encode_with_offsets", never)
    for prompt in ("猫" * 34_000, ["猫", "猫" * 34_000]):
        assert_error(server.post("/v1/completions", {"prompt": prompt}), 400, "characters")
    assert_error(server.post("/v1/completions", {"prompt": ["猫"] * 300}), 400, "300 texts")
    assert_error(server.post("/v1/completions", {"prompt": ["猫"] * 3, "n": 100}), 400, "300 texts")
    assert_error(server.post("/tokenize", {"prompt": "猫" * 100_001}), 400, "characters")


def test_typed_marks_stay_text(server: Server) -> None:
    prompt = "猫<|endoftext|><SP>"
    answer = server.complete(prompt=prompt, max_tokens=1, logprobs=0)
    assert answer["usage"]["prompt_tokens"] > 5


def test_text_ends_where_the_context_is_full(server: Server, model: ServedModel) -> None:
    answer = server.complete(prompt=[[5963] * 1022], max_tokens=100, min_tokens=100)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2


def test_impossible_scores_are_no_infinity(server: Server) -> None:
    choice = server.complete(
        prompt=CAT, max_tokens=4, temperature=0, logprobs=20, logit_bias={"7718": -100}
    )["choices"][0]
    for top in choice["logprobs"]["top_logprobs"]:
        assert all(math.isfinite(value) for value in top.values())


# ---- echo ----------------------------------------------------------------------------------------


def test_echo_without_new_tokens_scores_the_prompt(server: Server, model: ServedModel) -> None:
    answer = server.complete(prompt=CAT, echo=True, max_tokens=0, logprobs=2)
    choice = answer["choices"][0]
    assert choice["text"] == CAT
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 0
    score = model.generator.score(CAT)
    logprobs = choice["logprobs"]
    assert logprobs["token_logprobs"] == [None, *score.logprobs[1:]]
    assert logprobs["top_logprobs"][0] is None
    assert "".join(logprobs["tokens"]) == CAT
    for name, own, top in zip(
        logprobs["tokens"][1:],
        logprobs["token_logprobs"][1:],
        logprobs["top_logprobs"][1:],
        strict=True,
    ):
        assert top[name] == own
    for name, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert CAT.startswith(name, offset)


def test_prompt_alone_may_fill_the_context(server: Server) -> None:
    ids = [5963] * 1024
    body = {"prompt": ids, "echo": True, "max_tokens": 0, "logprobs": 0}
    assert len(server.complete(**body)["choices"][0]["logprobs"]["tokens"]) == 1024
    assert_error(server.post("/v1/completions", {**body, "max_tokens": 1}), 400, "1023")
    assert_error(
        server.post("/v1/completions", {**body, "prompt": [*ids, 1]}), 400, "at most 1024 tokens;"
    )


def test_no_new_tokens_without_echo_is_an_empty_text(server: Server) -> None:
    for answer in (
        server.complete(prompt=CAT, max_tokens=0),
        server.complete(prompt=CAT, max_tokens=0, logprobs=1),
    ):
        assert answer["choices"][0]["text"] == ""
        assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("as_ids", [False, True])
@pytest.mark.parametrize("logprobs", [None, 0, 3])
@pytest.mark.parametrize("stop", [None, "、"])
def test_echo_begins_the_text_with_the_prompt(
    server: Server, model: ServedModel, as_ids: bool, logprobs: int | None, stop: str | None
) -> None:
    prompt = model.codec.encode(CAT) if as_ids else CAT
    options = {"seed": 1, "max_tokens": 12, "logprobs": logprobs, "stop": stop}
    alone = server.complete(prompt=prompt, **options)["choices"][0]
    echoed = server.complete(prompt=prompt, echo=True, **options)["choices"][0]
    assert echoed["text"] == CAT + alone["text"]
    assert echoed["finish_reason"] == alone["finish_reason"]
    events = server.stream(prompt=prompt, echo=True, **options)
    assert joined(events) == {0: echoed["text"]}
    if logprobs is None:
        assert echoed["logprobs"] is None
        return
    num_prompt = len(model.codec.encode(CAT))
    for name, values in echoed["logprobs"].items():
        assert [v for e in events for v in e["choices"][0]["logprobs"][name]] == values
    own = {name: values[num_prompt:] for name, values in echoed["logprobs"].items()}
    own["text_offset"] = [offset - len(CAT) for offset in own["text_offset"]]
    assert own == alone["logprobs"]


def test_text_that_ends_has_an_entry_for_its_end(server: Server, model: ServedModel) -> None:
    prompt = model.codec.encode(CAT)
    end = str(model.codec.eot_token)
    body = {"prompt": prompt, "echo": True, "max_tokens": 1, "logprobs": 1}
    choice = server.complete(**body, logit_bias={end: 100})["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["text"] == CAT
    logprobs = choice["logprobs"]
    assert {len(values) for values in logprobs.values()} == {len(prompt) + 1}
    assert logprobs["tokens"][-1] == "<|endoftext|>"
    assert logprobs["text_offset"][-1] == len(CAT)
    assert logprobs["token_logprobs"][-1] in logprobs["top_logprobs"][-1].values()
    details = server.complete(**body, token_details=True, logit_bias={end: 100})["choices"][0]
    assert details["token_details"][-1]["text"] == ""
    assert len(details["token_details"]) == len(prompt) + 1


def test_details_of_an_echoed_prompt_are_its_own_characters(server: Server) -> None:
    prompt = "① 한국\r\n👨‍👩‍👧です"  # folded, bytes, two characters for one token
    choice = server.complete(
        prompt=prompt, echo=True, max_tokens=0, logprobs=0, token_details=True
    )["choices"][0]
    details = choice["token_details"]
    assert choice["text"] == prompt
    assert "".join(token["text"] for token in details) == prompt
    assert (details[0]["text"], bytes(details[0]["bytes"]).decode()) == ("①", "１")
    assert [token["bytes"] for token in details[2:5]] == [[0xED], [0x95], [0x9C]]
    assert [token["text"] for token in details[2:5]] == ["", "", "한"]
    offsets = choice["logprobs"]["text_offset"]
    assert offsets == [token["start"] for token in details]
    assert offsets[:5] == [0, 1, 2, 2, 2]


def test_echo_of_many_prompts_scores_each(server: Server) -> None:
    texts_ = [CAT, "雨が", "한국"]
    options = {"echo": True, "max_tokens": 1, "logprobs": 1, "seed": 1, "n": 2}
    together = server.complete(prompt=texts_, **options)["choices"]
    for number, text in enumerate(texts_):
        alone = server.complete(prompt=text, **options)["choices"]
        for found, expected in zip(together[2 * number :], alone, strict=False):
            assert {**found, "index": 0} == {**expected, "index": 0}


def test_best_of_with_echo_ranks_by_what_was_written(server: Server) -> None:
    options = {"prompt": CAT, "echo": True, "seed": 1, "max_tokens": 8}
    plain = server.complete(prompt=CAT, seed=1, max_tokens=8, n=1, best_of=5)
    echoed = server.complete(**options, best_of=5)
    assert echoed["choices"][0]["text"] == CAT + plain["choices"][0]["text"]
