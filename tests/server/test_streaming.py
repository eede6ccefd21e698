"""Clients that leave, stop reading, or wait: through sockets, on a server with two slots."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gpt_neox_japanese.server.service import ServedModel
from gpt_neox_japanese.server.streaming import EventStream
from tests.server.serving import Process, Server, assert_error, events_of

LONG: dict[str, Any] = {"prompt": "吾輩は猫である。", "max_tokens": 400, "min_tokens": 400}


def wait_until_idle(process: Process) -> None:
    deadline = time.monotonic() + 20
    while process.metric("neox_ja_running") or process.metric("neox_ja_waiting"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def busy(process: Process) -> Iterator[list[socket.socket]]:
    """Both slots taken by streams that are read, until the end of the block."""
    taken = [process.connect("/v1/completions", {**LONG, "n": 50, "stream": True})]
    taken[0].recv(100)
    try:
        yield taken
    finally:
        for connection in taken:
            connection.close()
        wait_until_idle(process)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("prompt", ["猫", "吾輩は猫である。" * 70])
def test_slot_is_free_when_the_client_leaves(process: Process, stream: bool, prompt: str) -> None:
    body = {**LONG, "prompt": prompt, "n": 8, "stream": stream}
    for seconds in (0, 0.05, 0.3):
        connection = process.connect("/v1/completions", body)
        time.sleep(seconds)
        connection.close()
    before = process.metric("neox_ja_generation_tokens_total")
    wait_until_idle(process)
    after = process.metric("neox_ja_generation_tokens_total")
    assert after - before < 3 * 8 * 400 / 2


def test_place_in_the_queue_is_free_when_the_client_leaves(process: Process) -> None:
    with busy(process):
        waiting = process.metric("neox_ja_waiting")
        connections = [
            process.connect("/v1/completions", {**LONG, "stream": stream})
            for stream in (True, False)
        ]
        deadline = time.monotonic() + 20
        while process.metric("neox_ja_waiting") < waiting + 2:
            assert time.monotonic() < deadline
        for connection in connections:
            connection.close()
        while process.metric("neox_ja_waiting") > waiting:
            assert time.monotonic() < deadline


def test_half_a_request_does_no_harm(process: Process) -> None:
    for part in (b"", b"POST", b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Le"):
        with socket.create_connection(("127.0.0.1", process.port)) as connection:
            connection.sendall(part)
    with socket.create_connection(("127.0.0.1", process.port)) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
        )
    assert process.request("/health").status_code == 200
    assert process.metric("neox_ja_running") == 0


def test_place_in_the_queue_is_told_while_it_changes(process: Process) -> None:
    with busy(process):
        body = {**LONG, "max_tokens": 1, "min_tokens": 1, "stream": True}
        connection = process.connect("/v1/completions", body)
        seen = b""
        while seen.count(b": waiting ") < 2:
            seen += connection.recv(1000)
        connection.close()
    places = [int(place) for place in re.findall(rb": waiting (\d+)\n\n", seen)]
    assert places == sorted(places, reverse=True)
    assert 0 < places[-1] < places[0] <= 51  # 50 texts are before it, if no slot was taken yet
    assert b"text/event-stream" in seen
    assert b"x-accel-buffering: no" in seen.lower()


def test_comment_is_sent_in_silence() -> None:
    sent: list[bytes] = []

    async def slow() -> Any:
        yield [b"1"]
        while sent.count(b": still here\n\n") < 2:
            await asyncio.sleep(0.001)
        yield []
        yield [b"2", b"3"]

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    stream = EventStream(
        slow(),
        queue_position=lambda: 0,
        keep_alive_interval=0.01,
        write_timeout=1,
        on_end=lambda: sent.append(b"end"),
    )
    asyncio.run(stream({"type": "http"}, receive, send))
    events = [data for data in sent if data and not data.startswith(b":")]
    assert events == [b"data: 1\n\n", b"data: 2\n\ndata: 3\n\n", b"data: [DONE]\n\n", b"end"]


def test_no_comment_follows_the_end_where_the_reader_was_slow() -> None:
    sent: list[Any] = []

    async def events() -> Any:
        yield [b"1"]

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def answer() -> None:
        is_read = asyncio.Event()

        async def send(message: Any) -> None:
            if message.get("body"):
                await is_read.wait()
            sent.append(message)

        stream = EventStream(
            events(),
            queue_position=lambda: 0,
            keep_alive_interval=0.01,
            write_timeout=5,
            on_end=lambda: None,
        )
        asyncio.get_running_loop().call_later(0.1, is_read.set)
        await stream({"type": "http"}, receive, send)

    asyncio.run(answer())
    assert [message for message in sent if message.get("more_body") is False] == sent[-1:]


def test_reader_that_stops_reading_is_cut_off(process: Process) -> None:
    ended = 'neox_ja_requests_total{route="/v1/completions",status="200"}'
    process.request("/v1/completions", {"prompt": "猫", "max_tokens": 1})
    before = process.metric(ended)
    # More than the buffers of the system hold.
    body = {**LONG, "n": 8, "stream": True, "logprobs": 20, "token_details": True}
    connection = process.connect("/v1/completions", body)
    connection.recv(1)
    deadline = time.monotonic() + 60
    while process.metric(ended) == before:  # though the connection is open
        assert time.monotonic() < deadline
        time.sleep(0.1)
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(1 << 20):
            received = received[-100:] + data
    assert b"[DONE]" not in received
    connection.close()


def test_many_streams_at_once_are_each_whole(process: Process) -> None:
    alone = process.request(
        "/v1/completions", {"prompt": "雨が", "seed": 1, "max_tokens": 30}
    ).json()
    texts: list[str] = []

    def read() -> None:
        answer = process.request(
            "/v1/completions", {"prompt": "雨が", "seed": 1, "max_tokens": 30, "stream": True}
        )
        texts.append("".join(event["choices"][0]["text"] for event in events_of(answer.text)))

    threads = [threading.Thread(target=read) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [alone["choices"][0]["text"]] * 12


def test_request_that_takes_too_long_is_ended(model: ServedModel) -> None:
    server = Server(model, request_timeout=0.2)
    body = {**LONG, "n": 100}
    error = assert_error(server.post("/v1/completions", body), 504, "0.2 s")
    assert error["code"] == "timeout"
    assert server.stream(**body)[-1] == {"error": error}
    assert server.service.is_idle
