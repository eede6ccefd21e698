"""What clients send beside and instead of whole requests: through sockets."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

import gpt_neox_japanese.server.connection as connection_module
from gpt_neox_japanese.server.connection import Connection
from tests.server.serving import Process, serving

LONG: dict[str, Any] = {"prompt": "吾輩は猫である。", "max_tokens": 400, "min_tokens": 400, "n": 50}


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    with serving("--slots", 2) as started:
        yield started
        started.end(signal.SIGTERM)
        assert len(started.log) == 1  # whatever was sent


def request(body: dict[str, Any], *more_headers: str) -> bytes:
    data = json.dumps(body).encode()
    head = ["POST /v1/completions HTTP/1.1", "Host: localhost", f"Content-Length: {len(data)}"]
    return "\r\n".join([*head, *more_headers, "", ""]).encode() + data


def read_to_end(connection: socket.socket) -> bytes:
    connection.settimeout(60)
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def wait_for(process: Process, num_running: int) -> None:
    deadline = time.monotonic() + 20
    while process.metric("neox_ja_running") != num_running:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("ahead", [b"\r\n", request(LONG), b"GET /health HT", b"\r\n" * 500_000])
def test_slot_is_free_when_a_client_leaves_that_sent_more(
    process: Process, stream: bool, ahead: bytes
) -> None:
    before = process.metric("neox_ja_generation_tokens_total")
    connection = process.connect("/v1/completions", {**LONG, "stream": stream})
    wait_for(process, 2)
    connection.sendall(ahead)
    time.sleep(0.05)
    connection.close()
    wait_for(process, 0)
    written = process.metric("neox_ja_generation_tokens_total") - before
    assert written < 50 * 400 / 2


def test_requests_sent_ahead_are_answered_in_order(process: Process) -> None:
    with process.connect("/v1/completions", {**LONG, "n": 2}) as connection:
        wait_for(process, 2)
        for n in (3, 4):
            connection.sendall(request({"prompt": "猫", "max_tokens": 1, "n": n}))
        connection.sendall(request({"prompt": "猫", "max_tokens": 1, "n": 5}, "Connection: close"))
        answers = read_to_end(connection).split(b"HTTP/1.1 200 OK")[1:]
    assert [answer.count(b'"finish_reason"') for answer in answers] == [2, 3, 4, 5]


def test_who_sends_too_much_ahead_gets_the_first_answer_and_no_more(process: Process) -> None:
    with process.connect("/v1/completions", {**LONG, "n": 2}) as connection:
        wait_for(process, 2)
        connection.sendall(request({"prompt": "猫" * 100_000}) * 3)
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.count(b'"finish_reason"') == 2
    assert answer.endswith(b"}")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000,
        b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
        b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
)
def test_what_is_no_http_is_told_so_as_an_error(process: Process, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", process.port)) as connection:
        connection.sendall(sent)
        try:
            answer = read_to_end(connection)
        except ConnectionResetError:  # what was sent after the answer was not read
            assert len(sent) > 100_000
            return
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    for line in (b"content-type: application/json", b"x-content-type-options: nosniff"):
        assert line in head.lower()
    [error] = json.loads(body).values()
    assert error.keys() == {"message", "type", "param", "code"}


def test_a_body_that_is_torn_after_its_answer_is_no_failure(process: Process) -> None:
    with socket.create_connection(("127.0.0.1", process.port)) as connection:
        connection.sendall(
            b"POST /none HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert b" 404 " in connection.recv(1 << 16)
        connection.sendall(b"ZZ\r\n\r\n")
        assert b"HTTP/1.1" not in read_to_end(connection)
    assert process.request("/health").status_code == 200


async def _answer_nothing(scope: object, receive: object, send: object) -> None:
    pass


NUM_BYTES = 16 << 20  # more than a system's sockets hold


async def _answer_much(_scope: object, _receive: object, send: Any) -> None:
    length = [(b"content-length", str(NUM_BYTES).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": bytes(NUM_BYTES)})


@asynccontextmanager
async def connecting(
    app: Any, *, write_timeout: float = 30.0
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, ServerState]]:
    """A client of a server in this event loop, and what the server holds."""
    config = uvicorn.Config(app=app, http=Connection, log_config=None)
    config.load()
    state = ServerState()

    def connect() -> Connection:
        return Connection(
            write_timeout=write_timeout, config=config, server_state=state, app_state={}
        )

    server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer, state
    finally:
        writer.close()
        server.close()


GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        GET,
        GET.replace(b"1.1\r\n", b"1.1\r\nConnection: close\r\n"),
        GET * 3,
        GET + b"no HTTP\r\n\r\n",
    ],
)
def test_nothing_is_held_for_a_client_that_does_not_read(sent: bytes) -> None:
    async def leave_unread() -> None:
        async with connecting(_answer_much, write_timeout=0.1) as (_reader, writer, state):
            writer.write(sent)
            async with asyncio.timeout(20):
                while not state.total_requests:
                    await asyncio.sleep(0.01)
                while state.connections or state.tasks:
                    await asyncio.sleep(0.01)

    asyncio.run(leave_unread())


def test_client_that_reads_slowly_gets_everything() -> None:
    async def read_slowly() -> None:
        async with connecting(_answer_much, write_timeout=0.5) as (reader, writer, _state):
            writer.write(GET)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            for _ in range(16):
                await reader.readexactly(NUM_BYTES // 16)
                await asyncio.sleep(0.05)

    asyncio.run(read_slowly())


def test_head_in_small_parts_is_not_waited_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "_SECONDS_FOR_A_HEAD", 0.2)

    async def send_slowly() -> bool:
        async with connecting(_answer_nothing) as (reader, writer, _state):
            for part in itertools.repeat(b"x", 400):
                writer.write(part)
                await asyncio.sleep(0.05)
                if reader.at_eof():
                    break
            return reader.at_eof()

    assert asyncio.run(send_slowly())
