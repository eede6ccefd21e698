"""The `openai` package pointed at the command."""

from __future__ import annotations

import asyncio

import openai
import pytest

from gpt_neox_japanese.server.service import ServedModel
from tests.server.serving import Process

CAT = "吾輩は猫である。"


@pytest.fixture(scope="module")
def client(process: Process) -> openai.OpenAI:
    return openai.OpenAI(base_url=process.address + "v1", api_key="none", max_retries=0)


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    [model] = client.models.list()
    assert model.id == "default"
    assert client.models.retrieve("default").id == "default"
    with pytest.raises(openai.NotFoundError, match="no model 'other'"):
        client.models.retrieve("other")


def test_text_is_continued(client: openai.OpenAI, model: ServedModel) -> None:
    written = client.completions.create(
        model="default", prompt=CAT, max_tokens=12, seed=1, logprobs=2
    )
    assert written.choices[0].text == model.generator.generate(CAT, max_new_tokens=12, seed=1)
    assert written.choices[0].logprobs is not None
    assert written.choices[0].logprobs.tokens is not None
    assert "".join(written.choices[0].logprobs.tokens) == written.choices[0].text
    assert written.usage is not None
    assert written.usage.completion_tokens == 12


def test_stream_is_the_same_text(client: openai.OpenAI) -> None:
    options = {"model": "default", "prompt": CAT, "max_tokens": 12, "seed": 1}
    whole = client.completions.create(**options)  # type: ignore[call-overload]
    chunks = list(
        client.completions.create(**options, stream=True, stream_options={"include_usage": True})  # type: ignore[call-overload]
    )
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == whole.choices[0].text
    assert chunks[-1].usage.completion_tokens == 12


def test_many_asynchronous_streams_run_side_by_side(process: Process) -> None:
    async def text_of(client: openai.AsyncOpenAI, seed: int) -> str:
        stream = await client.completions.create(
            model="default", prompt=CAT, max_tokens=12, seed=seed % 3, stream=True
        )
        return "".join([chunk.choices[0].text async for chunk in stream])

    async def all_texts() -> list[str]:
        url = process.address + "v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
            return await asyncio.gather(*(text_of(client, seed) for seed in range(9)))

    texts = asyncio.run(all_texts())
    assert texts[:3] * 3 == texts
    assert len(set(texts)) == 3


def test_stream_that_is_left_frees_its_slot(client: openai.OpenAI, process: Process) -> None:
    with client.completions.create(
        model="default", prompt=CAT, max_tokens=500, n=20, stream=True
    ) as stream:
        next(iter(stream))
    while process.metric("neox_ja_running") + process.metric("neox_ja_waiting"):
        pass


def test_errors_have_their_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="max_tokens") as wrong:
        client.completions.create(model="default", prompt=CAT, max_tokens=-1)
    assert wrong.value.param == "max_tokens"
    with pytest.raises(openai.NotFoundError, match="gpt-5") as unknown:
        client.completions.create(model="gpt-5", prompt=CAT)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="chat-template") as no_template:
        client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": "今日は"}]
        )
    assert no_template.value.code == "no_chat_template"
