"""What a program sees that speaks to OpenAI, through the `openai` package."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import openai
import pytest
from openai.types import Completion, CompletionChoice

from tests.server.serving import Process

CAT = "吾輩は猫である。"
MIXED = "ＡＢＣ①と한국😀は\n　彁。"  # bytes, folded characters, emoji, white space


def complete(client: openai.OpenAI, **options: Any) -> Completion:
    given: dict[str, Any] = {"model": "default", "prompt": CAT, "max_tokens": 8, "seed": 1}
    written: Completion = client.completions.create(**{**given, **options})
    return written


def one(client: openai.OpenAI, **options: Any) -> CompletionChoice:
    [choice] = complete(client, **options).choices
    return choice


def streamed(client: openai.OpenAI, **options: Any) -> list[Completion]:
    given: dict[str, Any] = {"model": "default", "prompt": CAT, "max_tokens": 8, "seed": 1}
    return list(client.completions.create(**{**given, **options}, stream=True))


# ---- Prompts and lengths -------------------------------------------------------------------------


def test_sixteen_tokens_are_written_by_default(client: openai.OpenAI) -> None:
    written = client.completions.create(model="default", prompt=CAT, extra_body={"min_tokens": 16})
    assert written.usage is not None
    assert written.usage.completion_tokens == 16


def test_ids_are_a_prompt_as_their_text_is(client: openai.OpenAI, home: Process) -> None:
    ids = home.request("/tokenize", {"prompt": CAT}).json()["tokens"]
    assert one(client, prompt=ids).text == one(client).text
    assert complete(client, prompt=ids).usage == complete(client).usage


@pytest.mark.parametrize("as_ids", [False, True])
def test_a_list_of_prompts_is_continued_in_order(
    client: openai.OpenAI, home: Process, as_ids: bool
) -> None:
    prompts: list[Any] = [CAT, "雨が降る。"]
    if as_ids:
        prompts = [home.request("/tokenize", {"prompt": p}).json()["tokens"] for p in prompts]
    together = complete(client, prompt=prompts).choices
    assert [choice.index for choice in together] == [0, 1]
    assert [c.text for c in together] == [one(client, prompt=prompt).text for prompt in prompts]


def test_n_choices_are_those_of_the_following_seeds(client: openai.OpenAI) -> None:
    texts = [choice.text for choice in complete(client, n=3, seed=5).choices]
    assert texts == [one(client, seed=seed).text for seed in (5, 6, 7)]
    assert len(set(texts)) == 3


def test_the_same_seed_writes_the_same_and_none_another_text(client: openai.OpenAI) -> None:
    long: dict[str, Any] = {"max_tokens": 30}
    assert one(client, **long).text == one(client, **long).text
    assert one(client, **long, seed=None).text != one(client, **long, seed=None).text


def test_best_of_is_the_likeliest_of_its_choices(client: openai.OpenAI) -> None:
    def mean(choice: CompletionChoice) -> float:
        assert choice.logprobs is not None
        values = choice.logprobs.token_logprobs
        assert values
        return math.fsum(values) / len(values)

    options: dict[str, Any] = {"logprobs": 0, "extra_body": {"min_tokens": 8}}
    every = complete(client, n=4, **options).choices
    assert one(client, best_of=4, **options).text == max(every, key=mean).text


def test_usage_counts_what_was_read_and_written(client: openai.OpenAI, home: Process) -> None:
    usage = complete(client, prompt=[CAT, "雨が"], n=2, extra_body={"min_tokens": 8}).usage
    read = sum(home.request("/tokenize", {"prompt": p}).json()["count"] for p in (CAT, "雨が"))
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (read, 4 * 8)
    assert usage.total_tokens == read + 32


# ---- How it is written ---------------------------------------------------------------------------


def test_greedy_text_is_the_same_for_every_seed(client: openai.OpenAI) -> None:
    assert len({one(client, temperature=0, seed=seed).text for seed in range(3)}) == 1


def test_the_checkpoint_says_what_a_request_leaves_out(
    client: openai.OpenAI, home: Process
) -> None:
    defaults = home.request("/v1/models").json()["data"][0]["defaults"]
    extra = {name: defaults[name] for name in ("top_k", "min_p", "repetition_penalty")}
    same = one(
        client,
        temperature=defaults["temperature"],
        top_p=defaults["top_p"],
        max_tokens=40,
        extra_body=extra,
    )
    assert same.text == one(client, max_tokens=40).text


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_ends_before_its_stop_string(client: openai.OpenAI, stream: bool) -> None:
    whole = one(client, max_tokens=40, extra_body={"min_tokens": 40}).text
    stop = whole[11:14]  # wherever tokens cut it
    options: dict[str, Any] = {"max_tokens": 40, "stop": ["絶対に無い", stop]}
    if stream:
        chunks = streamed(client, **options)
        text = "".join(chunk.choices[0].text for chunk in chunks)
        reason = chunks[-1].choices[0].finish_reason
    else:
        choice = one(client, **options)
        text, reason = choice.text, choice.finish_reason
    assert text == whole[: whole.index(stop)]
    assert reason == "stop"


def test_a_bias_decides_what_is_written(client: openai.OpenAI, home: Process) -> None:
    [token] = home.request("/tokenize", {"prompt": "猫"}).json()["tokens"]
    assert one(client, logit_bias={str(token): 100}, max_tokens=3).text == "猫猫猫"


def test_penalties_keep_a_word_from_coming_again(client: openai.OpenAI, home: Process) -> None:
    bias = {}
    for character in "猫犬":  # nothing else comes near
        [token] = home.request("/tokenize", {"prompt": character}).json()["tokens"]
        bias[str(token)] = 50.0
    options: dict[str, Any] = {
        "logit_bias": bias,
        "temperature": 0,
        "max_tokens": 3,
        "logprobs": 1,
        "extra_body": {"repetition_penalty": 1.0},
    }
    for name in ("frequency_penalty", "presence_penalty"):
        plain, held = one(client, **options), one(client, **options, **{name: 2})
        assert plain.logprobs is not None
        assert held.logprobs is not None
        # The first word is the same; that it came costs it something from the second on.
        assert held.text[0] == plain.text[0]
        assert {*plain.text, *held.text} <= {*"猫犬"}
        assert held.text.count(held.text[0]) <= plain.text.count(plain.text[0])
        assert held.text != plain.text or held.logprobs != plain.logprobs


@pytest.mark.parametrize(
    "extra", [{"top_k": 1}, {"min_p": 1.0}, {"top_k": 1, "repetition_penalty": 1.0}]
)
def test_fields_of_vllm_are_heard(client: openai.OpenAI, extra: dict[str, Any]) -> None:
    greedy = one(client, temperature=0, extra_body={"repetition_penalty": 1.0}).text
    same = one(client, extra_body={"repetition_penalty": 1.0, **extra}).text
    assert same == greedy


def test_token_ids_are_returned_where_asked_for(client: openai.OpenAI, home: Process) -> None:
    choice = one(client, extra_body={"return_token_ids": True, "min_tokens": 8})
    extra: dict[str, Any] = choice.model_extra or {}
    assert extra["prompt_token_ids"] == home.request("/tokenize", {"prompt": CAT}).json()["tokens"]
    assert len(extra["token_ids"]) == 8
    text = home.request("/detokenize", {"tokens": extra["token_ids"]}).json()["prompt"]
    assert text == choice.text


# ---- Scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [CAT, MIXED, "雨が降る。" * 60])
def test_a_text_is_scored_whole_with_echo(client: openai.OpenAI, prompt: str) -> None:
    choice = one(client, prompt=prompt, max_tokens=0, echo=True, logprobs=2)
    found = choice.logprobs
    assert choice.text == prompt
    assert found is not None
    assert found.tokens
    assert found.token_logprobs
    assert found.text_offset
    assert found.top_logprobs
    assert {len(found.tokens)} == {
        len(each) for each in (found.token_logprobs, found.text_offset, found.top_logprobs)
    }
    assert found.token_logprobs[0] is None
    assert all(value <= 0 for value in found.token_logprobs[1:])
    assert found.text_offset == sorted(found.text_offset)


def test_scores_of_echo_are_those_of_writing(client: openai.OpenAI) -> None:
    written = one(client, logprobs=0, temperature=0)
    echoed = one(client, prompt=CAT + written.text, max_tokens=0, echo=True, logprobs=0)
    assert written.logprobs is not None
    assert echoed.logprobs is not None
    assert written.logprobs.token_logprobs
    assert echoed.logprobs.token_logprobs
    end = echoed.logprobs.token_logprobs[-len(written.logprobs.token_logprobs) :]
    assert end == pytest.approx(written.logprobs.token_logprobs, abs=1e-3)


def test_a_score_of_one_more_token_has_one_more_entry(client: openai.OpenAI) -> None:
    for prompt in (CAT, "終わり。<|endoftext|>"):
        scored = one(client, prompt=prompt, max_tokens=0, echo=True, logprobs=0).logprobs
        more = one(client, prompt=prompt, max_tokens=1, echo=True, logprobs=0).logprobs
        assert scored is not None
        assert more is not None
        assert len(more.tokens or ()) == len(scored.tokens or ()) + 1


@pytest.mark.parametrize("top", [0, 1, 20])
def test_so_many_alternatives_are_told_and_the_token_itself(
    client: openai.OpenAI, top: int
) -> None:
    found = one(client, logprobs=top).logprobs
    assert found is not None
    assert found.tokens
    assert found.top_logprobs
    for token, alternatives in zip(found.tokens, found.top_logprobs, strict=True):
        assert token in alternatives
        assert top <= len(alternatives) <= top + 1


def test_names_of_tokens_hold_no_broken_character(client: openai.OpenAI) -> None:
    found = one(client, prompt=MIXED, max_tokens=0, echo=True, logprobs=20).logprobs
    assert found is not None
    assert found.tokens
    assert any(token.startswith("bytes:\\x") for token in found.tokens)
    names = [*found.tokens, *(name for top in found.top_logprobs or () for name in top or ())]
    assert not any("\ufffd" in name for name in names)


# ---- Streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [CAT, MIXED])
def test_a_stream_is_the_same_text_in_whole_characters(client: openai.OpenAI, prompt: str) -> None:
    options: dict[str, Any] = {"prompt": prompt, "n": 2, "max_tokens": 40, "temperature": 2}
    whole = complete(client, **options)
    chunks = streamed(client, **options)
    for index, choice in enumerate(whole.choices):
        texts = [c.text for chunk in chunks for c in chunk.choices if c.index == index]
        assert "".join(texts) == choice.text
        assert not any("\ufffd" in text for text in texts)


def test_usage_of_a_stream_comes_last_where_asked_for(client: openai.OpenAI) -> None:
    assert all(chunk.usage is None for chunk in streamed(client))
    chunks = streamed(client, stream_options={"include_usage": True})
    assert chunks[-1].choices == []
    assert chunks[-1].usage == complete(client).usage


def test_a_stream_may_echo_and_score(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"echo": True, "logprobs": 1}
    whole = one(client, **options)
    parts = [chunk.choices[0] for chunk in streamed(client, **options)]
    assert "".join(part.text for part in parts) == whole.text
    tokens = [token for p in parts if p.logprobs for token in p.logprobs.tokens or ()]
    assert whole.logprobs is not None
    assert tokens == whole.logprobs.tokens


def test_asynchronous_streams_are_each_what_they_are_alone(
    client: openai.OpenAI, home: Process
) -> None:
    async def text(asking: openai.AsyncOpenAI, seed: int) -> str:
        stream = await asking.completions.create(
            model="default", prompt=CAT, max_tokens=8, seed=seed, stream=True
        )
        return "".join([chunk.choices[0].text async for chunk in stream])

    async def all_texts() -> list[str]:
        url = home.address + "v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none") as asking:
            return await asyncio.gather(*(text(asking, seed) for seed in range(6)))

    assert asyncio.run(all_texts()) == [one(client, seed=seed).text for seed in range(6)]


# ---- Refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [99999]}, "prompt"),
        ({"prompt": [CAT, 5]}, "prompt"),
        ({"prompt": "猫" * 20_000}, "prompt"),
        ({"prompt": "猫" * 1200}, "prompt"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"extra_body": {"max_tokens": "16"}}, "max_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"n": 2, "best_of": 1}, "best_of"),
        ({"logprobs": 21}, "logprobs"),
        ({"suffix": "終わり。"}, "suffix"),
        ({"stop": ["a"] * 100}, "stop"),
        ({"logit_bias": {"猫": 1}}, "logit_bias"),
        ({"seed": 0.5}, "seed"),
    ],
)
def test_a_wrong_field_is_named(client: openai.OpenAI, options: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        complete(client, **options)
    assert (refused.value.param or "").partition(".")[0] == param
    assert len(refused.value.message) > 20


def test_more_choices_than_the_server_takes_are_refused_for_good(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        complete(client, n=9)  # two slots, a queue of six
    assert refused.value.code == "too_many_texts"


def test_unknown_fields_are_ignored(client: openai.OpenAI) -> None:
    assert one(client, extra_body={"no_such_field": [1]}).text == one(client).text


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        complete(client, model="gpt-5")
    assert refused.value.code == "model_not_found"


# ---- Chat ----------------------------------------------------------------------------------------

HELLO: Any = [{"role": "user", "content": "今日は。"}]


def test_chat_without_a_template_says_what_to_do(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="default", messages=HELLO)
    assert refused.value.code == "no_chat_template"
    assert "/v1/completions" in refused.value.message
    assert "--chat-template FILE" in refused.value.message


def test_chat_with_a_template_answers_and_streams_the_same(chat: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "作家", "messages": HELLO, "max_tokens": 8, "seed": 1}
    whole = chat.chat.completions.create(**options)
    parts = list(chat.chat.completions.create(**options, stream=True))
    assert parts[0].choices[0].delta.role == "assistant"
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == whole.choices[0].message.content


def test_a_tag_that_somebody_types_ends_no_turn(chat: openai.OpenAI, shared: Process) -> None:
    def read(content: str) -> int:
        written = chat.chat.completions.create(
            model="作家", messages=[{"role": "user", "content": content}], max_tokens=1
        )
        assert written.usage is not None
        return written.usage.prompt_tokens

    assert read("猫<|endoftext|>") > read("猫") + 3  # its letters, not the one id
