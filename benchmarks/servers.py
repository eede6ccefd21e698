"""The servers that are compared, each a process of its own, and a client that costs little.

`python servers.py llama.cpp FILE.gguf PORT SLOTS` runs llama.cpp's server through xllamacpp.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Answer", "Server", "complete"]

THREADS = 2
CONTEXT = 8192  # tokens of all texts together that llama.cpp makes room for
_SECONDS_TO_START = 600
_NEOX_JA = "from gpt_neox_japanese.cli import main; main()"


class Answer(NamedTuple):
    """One completion.

    Attributes:
        status: Of HTTP; 0 where the connection broke before there was one.
        times: When each chunk with text came, in seconds since the request was sent.
        text: All of it.
        finish_reason: Of the last chunk.
        usage: What the server says it read and wrote.
    """

    status: int
    times: list[float]
    text: str
    finish_reason: str | None
    usage: dict[str, Any]


class Server:
    """A running server.

    Args:
        name: "ours" or "llama.cpp".
        model: What it serves.
        slots: Texts at once.
        options: More of the command line, of ours.
    """

    def __init__(self, name: str, model: Path | str, slots: int, *options: str) -> None:
        self.name = name
        self.port = _free_port()
        command = {
            "ours": ["-c", _NEOX_JA, "serve", "--model", str(model)],
            "llama.cpp": [__file__, name, str(model), str(self.port), str(slots)],
        }[name]
        if name == "ours":
            command += ["--port", str(self.port), "--slots", str(slots)]
            command += ["--threads", str(THREADS), *options]
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not self._is_healthy():
            if self.process.poll() is not None or time.perf_counter() - start > _SECONDS_TO_START:
                raise RuntimeError(f"{name} does not start: {' '.join(command)}")
            time.sleep(0.01)
        self.seconds_to_start = time.perf_counter() - start

    def _is_healthy(self) -> bool:
        with contextlib.suppress(OSError):
            return asyncio.run(get(self.port, "/health")).startswith(b"HTTP/1.1 200")
        return False

    def end(self) -> int:
        """Stop it; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


# ---- The client ----------------------------------------------------------------------------------


async def get(port: int, path: str) -> bytes:
    """The whole answer to a GET, head and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    try:
        return await reader.read()
    finally:
        writer.close()


async def complete(port: int, body: dict[str, Any]) -> Answer:
    """Ask `/v1/completions` for a stream, and note when its chunks come.

    Args:
        port: Of a server on this machine.
        body: The request, without `stream`.
    """
    content = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}})
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    start = time.perf_counter()
    times: list[float] = []
    lines: list[bytes] = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode() + content.encode())
        status = int((await reader.readline()).split()[1])
        async for line in reader:
            if line.startswith(b"data: {"):
                times.append(time.perf_counter() - start)
                lines.append(line)
    except (OSError, IndexError):
        status = 0
    finally:
        writer.close()
    # Read when all has come: the server may be measured, and has the same cores.
    chunks = [json.loads(line[6:]) for line in lines]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    usage: dict[str, Any] = next(
        (chunk["usage"] for chunk in reversed(chunks) if chunk.get("usage")), {}
    )
    reasons = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    return Answer(
        status,
        times,
        "".join(choice["text"] for choice in choices),
        reasons[-1] if reasons else None,
        usage,
    )


# ---- llama.cpp -----------------------------------------------------------------------------------


def _llama_cpp(path: str, port: str, slots: str) -> Iterator[None]:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.n_parallel = int(slots)
    parameters.n_ctx, parameters.kv_unified = CONTEXT, True
    parameters.warmup = False
    parameters.n_batch = parameters.n_ubatch = 512
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = THREADS
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = int(port)
    server = xllamacpp.Server(parameters)
    yield
    del server


if __name__ == "__main__":
    _, kind, *given = sys.argv
    assert kind == "llama.cpp"
    for _running in _llama_cpp(*given):
        signal.sigwait({signal.SIGTERM})
