"""A server to ask: in this process, without sockets, or as the command in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from gpt_neox_japanese.server.app import make_app
from gpt_neox_japanese.server.service import ServedModel, Service
from gpt_neox_japanese.server.settings import ServerSettings


class Server:
    """Asks a service's application."""

    def __init__(self, model: ServedModel | None, **settings: Any) -> None:
        self.service = Service(ServerSettings(model_name="default", **settings))
        if model is not None:
            self.service.open(model)

    def ask(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **content: Any
    ) -> httpx.Response:
        """The answer to one request."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=make_app(self.service))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost", timeout=60
            ) as client:
                return await client.request(method, path, headers=headers, **content)

        return asyncio.run(ask())

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.ask("POST", path, json=body)

    def complete(self, **body: Any) -> dict[str, Any]:
        """A completion that must succeed."""
        answer = self.post("/v1/completions", body)
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    def stream(self, path: str = "/v1/completions", **body: Any) -> list[dict[str, Any]]:
        """The events of a stream that ends well."""
        answer = self.post(path, {**body, "stream": True})
        assert answer.status_code == 200, answer.text
        return events_of(answer.text)


def events_of(text: str) -> list[dict[str, Any]]:
    """The events of a whole stream, without its comments; `[DONE]` must be the last."""
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    assert blocks[-1] == "data: [DONE]"
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-1]]


def assert_error(answer: httpx.Response, status: int, said: str = "") -> dict[str, Any]:
    """OpenAI's error object, whose message says something; it is returned."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    [error] = answer.json().values()
    assert error.keys() == {"message", "type", "param", "code"}
    assert said in error["message"]
    return error  # type: ignore[no-any-return]


class Process:
    """`neox-ja serve` in a process of its own.

    Attributes:
        address: Of the page.
    """

    def __init__(self, *options: object, **environment: str) -> None:
        code = "from gpt_neox_japanese.cli import main; main()"
        arguments = map(str, ["serve", "--port", 0, "--threads", 1, *options])
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, **environment},
        )
        assert self.process.stderr is not None
        self.log: list[str] = []
        for line in self.process.stderr:
            self.log.append(line)
            if " is ready: " in line:
                self.address = line.split()[-1]
                break
        else:
            raise AssertionError("".join(self.log))

    @property
    def port(self) -> int:
        return int(self.address.rstrip("/").rpartition(":")[2])

    def request(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """The answer to a GET, or with a body to a POST."""
        method = "GET" if body is None else "POST"
        return httpx.request(
            method, self.address.rstrip("/") + path, json=body, timeout=60, **options
        )

    def connect(self, path: str, body: Any) -> socket.socket:
        """A connection on which a request was sent."""
        data = json.dumps(body).encode()
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        return connection

    def metric(self, name: str) -> float:
        """The present value of a metric."""
        lines = self.request("/metrics").text.splitlines()
        [line] = [line for line in lines if line.startswith(f"{name} ")]
        return float(line.split()[1])

    def end(self, signal_number: int) -> int:
        """Send a signal; the exit status."""
        self.process.send_signal(signal_number)
        return self.wait()

    def wait(self) -> int:
        """The exit status; what was logged meanwhile goes to `log`."""
        assert self.process.stderr is not None
        self.log += self.process.stderr.readlines()
        return self.process.wait(timeout=20)


@contextmanager
def serving(*options: object, **environment: str) -> Iterator[Process]:
    """A server in a process of its own, which is killed in the end if it still runs."""
    process = Process(*options, **environment)
    try:
        yield process
    finally:
        process.process.kill()
        process.process.wait()
        assert process.process.stderr is not None
        process.process.stderr.close()
