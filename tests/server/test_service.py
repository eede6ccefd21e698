from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import httpx
import pytest

from gpt_neox_japanese.inference.sampling.params import SamplingParams
from gpt_neox_japanese.inference.text_stream import TextStream
from gpt_neox_japanese.server.app import make_app
from gpt_neox_japanese.server.error_responses import ApiError
from gpt_neox_japanese.server.service import ServedModel
from gpt_neox_japanese.tokenizer.chat_template import ChatTemplate
from tests.server.serving import Server, assert_error


def test_full_queue_is_told_with_the_time_to_come_back(model: ServedModel) -> None:
    server = Server(model, max_queue=2)  # beside four slots
    with server.service.admit(4):
        assert server.post("/v1/completions", {"prompt": "猫", "n": 2}).status_code == 200
        answer = server.post("/v1/completions", {"prompt": "猫", "n": 3})
        error = assert_error(answer, 429, "4 texts")
        assert error["type"] == "rate_limit_error"
        assert error["code"] == "queue_full"
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert server.post("/v1/completions", {"prompt": "猫", "n": 6}).status_code == 200
    assert_error(server.post("/v1/completions", {"prompt": "猫", "n": 7}), 400, "takes 6 at once")


def test_full_queue_of_the_engine_is_told_alike(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.generator.engine, "_max_waiting", 1)
    answer = Server(model).post("/v1/completions", {"prompt": "猫", "n": 100, "max_tokens": 30})
    assert_error(answer, 429)
    assert "retry-after" in answer.headers


def test_place_is_given_back_after_any_end(model: ServedModel) -> None:
    server = Server(model, max_queue=0)
    for body in ({"n": 9}, {"prompt": "猫", "seed": "x"}, {"prompt": [99999]}, {"prompt": "猫"}):
        server.post("/v1/completions", body)
    with pytest.raises(ZeroDivisionError), server.service.admit(4):
        raise ZeroDivisionError
    with server.service.admit(4), pytest.raises(ApiError), server.service.admit(1):
        pass


def test_long_texts_leave_the_event_loop_to_others(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    encode = model.codec.encode

    def watch(text: str) -> list[int]:
        threads.append(threading.current_thread())
        return encode(text)

    monkeypatch.setattr(model.codec, "encode", watch)
    server = Server(model)
    for prompt, n in (("猫" * 501, 1), ("猫" * 20, 30), ("猫", 1)):
        server.post("/v1/completions", {"prompt": prompt, "n": n, "max_tokens": 1})
    assert [thread is threading.main_thread() for thread in threads] == [False, False, True]


def test_many_ids_leave_the_event_loop_to_others(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    begin = model.generator.stream_details

    def watch(*given: Any, **options: Any) -> TextStream:
        threads.append(threading.current_thread())
        return begin(*given, **options)

    monkeypatch.setattr(model.generator, "stream_details", watch)
    Server(model).complete(prompt=[5963] * 20, n=30, echo=True, max_tokens=0)
    assert threading.main_thread() not in threads


@pytest.mark.parametrize(
    ("body", "is_small"),
    [
        ({"n": 2, "stop": "。", "logit_bias": {"5963": 1}}, True),
        ({"n": 30}, False),
        ({"logit_bias": {str(token_id): 1 for token_id in range(1024)}}, False),
        ({"prompt": ["猫"] * 4, "logit_bias": {str(token_id): 1 for token_id in range(50)}}, False),
        ({"stop": [f"{'猫' * 250}{number}" for number in range(16)]}, False),
    ],
)
def test_options_of_many_texts_are_checked_beside_the_event_loop(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch, body: dict[str, Any], is_small: bool
) -> None:
    threads = set()
    check = SamplingParams.__post_init__

    def watch(params: SamplingParams) -> None:
        threads.add(threading.current_thread())
        check(params)

    monkeypatch.setattr(SamplingParams, "__post_init__", watch)
    Server(model).complete(**{"prompt": "猫", "max_tokens": 1, **body})
    assert (threading.main_thread() in threads) == is_small


class _SlowCodec:
    """A model's codec whose next text is tokenized when a test says so."""

    def __init__(self, model: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_begun = threading.Event()
        self.go_on = threading.Event()
        self._encode = model.codec.encode
        monkeypatch.setattr(model.codec, "encode", self._wait_and_encode)

    def _wait_and_encode(self, text: str) -> list[int]:
        self.is_begun.set()
        assert self.go_on.wait(20)
        return self._encode(text)

    async def begin(self) -> None:
        while not self.is_begun.is_set():
            await asyncio.sleep(0.001)


def test_client_that_leaves_counts_until_its_thread_is_done_and_leaves_no_text(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = _SlowCodec(model, monkeypatch)
    server = Server(model)
    begun: list[TextStream] = []
    begin = model.generator.stream_details

    def watch(*given: Any, **options: Any) -> TextStream:
        begun.append(begin(*given, **options))
        return begun[-1]

    monkeypatch.setattr(model.generator, "stream_details", watch)
    body = {"prompt": "猫" * 501, "n": 3, "max_tokens": 10}
    messages = [{"type": "http.request", "body": json.dumps(body).encode()}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await slow.begin()
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None:
        pass

    async def leave() -> None:
        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
        asked = asyncio.ensure_future(make_app(server.service)(scope, receive, send))
        await slow.begin()
        await asyncio.sleep(0.05)
        assert not server.service.is_idle
        slow.go_on.set()
        await asked

    asyncio.run(leave())
    assert server.service.is_idle
    assert [next(stream, None) for stream in begun] == [None] * 3


def test_no_more_threads_tokenize_than_may_when_clients_leave(model: ServedModel) -> None:
    go_on = threading.Event()
    num_begun = 0

    def work() -> None:
        nonlocal num_begun
        num_begun += 1
        assert go_on.wait(20)

    async def leave() -> None:
        fresh = ServedModel("default", model.generator)
        asked = [asyncio.ensure_future(fresh.in_thread(work)) for _ in range(6)]
        while num_begun < 2:
            await asyncio.sleep(0.001)
        for each in asked[:3]:
            each.cancel()
        await asyncio.sleep(0.05)
        assert num_begun == 2
        go_on.set()
        await asyncio.wait(asked)
        assert [each.cancelled() for each in asked] == [True] * 3 + [False] * 3

    asyncio.run(leave())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "猫"}]}),
        ("/v1/completions", {"prompt": "猫" * 501}),
        ("/tokenize", {"prompt": "猫"}),
        ("/detokenize", {"tokens": [5963]}),
    ],
)
def test_who_leaves_before_a_thread_is_free_does_not_get_one(
    model: ServedModel, path: str, body: dict[str, Any]
) -> None:
    template = ChatTemplate("{{ messages[0].content }}", model.codec)
    fresh = ServedModel("default", model.generator, template)
    app = make_app(Server(fresh).service)
    go_on = threading.Event()
    messages = [{"type": "http.request", "body": json.dumps(body).encode()}]

    async def receive() -> Any:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(_message: Any) -> None:
        pass

    async def leave() -> None:
        busy = [asyncio.ensure_future(fresh.in_thread(go_on.wait, 60)) for _ in range(2)]
        scope = {"type": "http", "method": "POST", "path": path, "headers": []}
        try:
            await asyncio.sleep(0)
            asked = asyncio.ensure_future(app(scope, receive, send))
            await asyncio.wait([asked], timeout=10)  # for ever, if it waits for a thread
            assert asked.done()
        finally:
            go_on.set()
            await asyncio.wait(busy)

    asyncio.run(leave())


def test_stop_waits_for_what_is_tokenized_and_ends_it(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = _SlowCodec(model, monkeypatch)
    server = Server(model)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=make_app(server.service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            body = {"prompt": "猫" * 501, "n": 30, "max_tokens": 10}
            asked = asyncio.create_task(client.post("/v1/completions", json=body))
            await slow.begin()
            server.service.stop()
            assert not server.service.is_idle
            slow.go_on.set()
            return await asked

    assert_error(asyncio.run(ask()), 503, "stopped")
    assert server.service.is_idle


def test_time_to_come_back_is_that_of_complete_texts(model: ServedModel) -> None:
    service = Server(model).service

    def seconds() -> int:
        with service.admit(20):  # five rounds of four slots
            return int(service.queue_full().headers["Retry-After"])

    def ask(**body: Any) -> None:
        server.post("/v1/completions", body)

    server = Server(model)
    server.service = service
    assert seconds() == 5
    for _ in range(30):
        ask(prompt=[99999])
    assert seconds() == 5
    ask(prompt="猫", n=50, max_tokens=1)
    assert seconds() == 1


def test_time_to_come_back_counts_the_reading_of_prompts(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = model.generator.engine.network
    prefill = network.prefill
    seconds: list[float] = []

    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(0.2)
        return prefill(*arguments, **named)

    server = Server(model)
    count = server.service.metrics.count
    monkeypatch.setattr(network, "prefill", slow)
    monkeypatch.setattr(
        server.service.metrics,
        "count",
        lambda generation: (seconds.extend(generation.seconds_of_texts), count(generation)),
    )
    server.complete(prompt=[6000 + number for number in range(200)], max_tokens=1)
    assert seconds[0] >= 0.2


def test_metrics_count_requests_and_tokens(model: ServedModel) -> None:
    server = Server(model)
    server.complete(prompt=[[5963, 5963]], n=2, max_tokens=5, min_tokens=5)
    server.post("/v1/completions", {"prompt": 1})
    while model.generator.engine.num_running:  # an answer may be there before its slot is free
        time.sleep(0.001)
    lines = server.get("/metrics").text.splitlines()
    for line in (
        'neox_ja_requests_total{route="/v1/completions",status="200"} 1.0',
        'neox_ja_requests_total{route="/v1/completions",status="400"} 1.0',
        "neox_ja_prompt_tokens_total 2.0",
        "neox_ja_generation_tokens_total 10.0",
        "neox_ja_time_to_first_token_seconds_count 1.0",
        "neox_ja_request_duration_seconds_count 1.0",
        "neox_ja_running 0.0",
        "neox_ja_waiting 0.0",
    ):
        assert line in lines


def test_nothing_of_a_client_becomes_a_label(model: ServedModel) -> None:
    server = Server(model)
    server.get("/evil", **{"x-request-id": "evil", "user-agent": "evil"})
    server.ask("EVIL", "/v1/completions?evil")
    server.post("/v1/completions", {"prompt": "evil", "model": "evil", "user": "evil"})
    assert "evil" not in server.get("/metrics").text.lower()


def test_abort_tells_whoever_waits(model: ServedModel) -> None:
    server = Server(model)

    async def ask() -> int:
        transport = httpx.ASGITransport(app=make_app(server.service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            body = {"prompt": "猫", "n": 60, "max_tokens": 400, "min_tokens": 400}
            asked = asyncio.create_task(client.post("/v1/completions", json=body))
            while server.service.is_idle:
                await asyncio.sleep(0.001)
            server.service.stop()
            server.service.abort()
            return (await asked).status_code

    assert asyncio.run(ask()) == 503
    assert server.service.is_idle


def test_what_is_being_written_goes_on_while_the_server_stops(model: ServedModel) -> None:
    server = Server(model)
    real = server.service.seconds_between_reads

    def stop_first() -> float:
        server.service.stop()
        return real()

    server.service.seconds_between_reads = stop_first  # type: ignore[method-assign]
    body = {"prompt": "猫", "max_tokens": 100, "min_tokens": 100, "seed": 1}
    choice = server.complete(**body)["choices"][0]
    assert server.service.status == "stopping"
    assert choice["finish_reason"] == "length"


def test_an_answer_that_is_whole_is_not_waited_for(model: ServedModel) -> None:
    server = Server(model)
    server.service.seconds_between_reads = lambda: 60.0  # type: ignore[method-assign]
    start = time.monotonic()
    server.complete(prompt="猫", max_tokens=1)
    assert time.monotonic() - start < 50


def test_a_model_is_told_with_the_fingerprint_of_its_vocabulary(model: ServedModel) -> None:
    [told] = Server(model).get("/v1/models").json()["data"]
    assert told["vocabulary"] == model.codec.fingerprint
