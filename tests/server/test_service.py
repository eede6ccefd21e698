from __future__ import annotations

import asyncio

import pytest

from gpt_neox_japanese.server.error_responses import ApiError
from gpt_neox_japanese.server.service import ServedModel
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
    import threading

    threads = []
    encode = model.codec.encode

    def watch(text: str) -> list[int]:
        threads.append(threading.current_thread())
        return encode(text)

    monkeypatch.setattr(model.codec, "encode", watch)
    server = Server(model)
    for text in ("猫" * 501, "猫"):
        server.post("/v1/completions", {"prompt": text, "max_tokens": 1})
    assert threads[0] is not threading.main_thread()
    assert threads[1] is threading.main_thread()


def test_metrics_count_requests_and_tokens(model: ServedModel) -> None:
    server = Server(model)
    server.complete(prompt=[[5963, 5963]], n=2, max_tokens=5, min_tokens=5)
    server.post("/v1/completions", {"prompt": 1})
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
        import httpx

        from gpt_neox_japanese.server.app import make_app

        transport = httpx.ASGITransport(app=make_app(server.service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            body = {"prompt": "猫", "n": 60, "max_tokens": 400, "min_tokens": 400}
            asked = asyncio.create_task(client.post("/v1/completions", json=body))
            while server.service.is_idle:
                await asyncio.sleep(0.001)
            server.service.abort()
            return (await asked).status_code

    assert asyncio.run(ask()) == 503
    assert server.service.is_idle
