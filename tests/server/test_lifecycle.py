"""Start, signals, stop: the command in a process of its own."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from gpt_neox_japanese.errors import ArgumentError
from gpt_neox_japanese.server import lifecycle
from tests.cli.run import assert_refused, run
from tests.server.serving import Server, assert_error, events_of, serving

LONG: dict[str, Any] = {"prompt": "吾輩は猫である。", "max_tokens": 400, "min_tokens": 400}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind")


def test_signal_ends_an_idle_server_with_0() -> None:
    with serving() as process:
        assert process.log == [f"neox-ja: default is ready: http://127.0.0.1:{process.port}/\n"]
        silent = socket.create_connection(("127.0.0.1", process.port))
        with httpx.Client() as client:  # whose connection is kept alive
            assert client.get(process.address).status_code == 200
            start = time.monotonic()
            assert process.end(signal.SIGINT) == 0
            assert time.monotonic() - start < 10
        silent.close()
    assert len(process.log) == 1


def test_signal_under_load_tears_no_event_and_logs_no_prompt() -> None:
    with serving("--slots", 2, "--log-requests") as process:
        answers: list[httpx.Response] = []

        def ask(n: int, stream: bool) -> None:
            body = {**LONG, "n": n, "stream": stream}
            answers.append(process.request("/v1/completions", body))

        kinds = [(1, True), (1, False), (60, True), (60, False)]
        threads = [threading.Thread(target=ask, args=kind) for kind in kinds]
        for thread in threads:
            thread.start()
        while process.metric("neox_ja_waiting") < 100:
            pass
        start = time.monotonic()
        assert process.end(signal.SIGTERM) == 0
        assert time.monotonic() - start < 10
        for thread in threads:
            thread.join()
    for answer in answers:
        if answer.headers["content-type"] == "application/json":
            assert answer.status_code in (200, 503), answer.text
            assert answer.status_code == 200 or answer.json()["error"]["code"] == "stopping"
        else:
            last = events_of(answer.text)[-1]
            assert "error" in last or last["choices"][0]["finish_reason"] == "length"
    assert len(answers) == 4
    log = "".join(process.log)
    assert len(re.findall(r"POST /v1/completions \d{3} \d+\.\d+ s id=\w{32}\n", log)) == 4
    assert "吾輩" not in log
    assert "Traceback" not in log


def test_second_signal_does_not_wait() -> None:
    with serving("--slots", 1) as process:
        connection = process.connect("/v1/completions", {**LONG, "n": 100, "stream": True})
        connection.recv(100)
        process.process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert process.end(signal.SIGINT) == 0
        connection.close()


def test_clients_that_are_slow_at_the_end_are_no_failure() -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
    unread = {**LONG, "n": 50, "logprobs": 20, "stream": True}
    with (
        serving() as process,
        process.connect("/v1/completions", unread),
        socket.create_connection(("127.0.0.1", process.port), timeout=20) as half,
    ):
        half.sendall(head + b"{")
        while not process.metric("neox_ja_running"):
            pass
        assert process.end(signal.SIGTERM) == 0
        assert b" 503 " in half.recv(1000)
    assert "Traceback" not in "".join(process.log)


def test_requests_wait_for_nothing_while_the_server_stops_or_loads() -> None:
    server = Server(None)
    for status in ("loading", "stopping"):
        health = server.get("/health")
        assert (health.status_code, health.json()) == (503, {"status": status})
        answer = server.post("/v1/completions", {"prompt": "猫"})
        error = assert_error(answer, 503, f"is {status}")
        assert error["code"] == status
        assert int(answer.headers["retry-after"]) > 0
        assert server.get("/metrics").status_code == 200
        server.service.stop()


def test_signal_while_the_model_is_loaded_ends_the_server() -> None:
    code = (
        "import time\n"
        "from gpt_neox_japanese.server import lifecycle, settings\n"
        "lifecycle.run_server(settings.ServerSettings(model_name='m', port=0),"
        " lambda: (print('loading', flush=True), time.sleep(60)))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def test_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_refused(run("serve", "--port", port), str(port))


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="needs IPv6")
@pytest.mark.parametrize(("host", "is_open"), [("::1", False), ("::", True)])
def test_server_listens_at_ipv6_and_says_an_address_that_a_browser_takes(
    host: str, is_open: bool
) -> None:
    with serving("--host", host) as process:
        assert process.log[0] == f"neox-ja: default is ready: http://[::1]:{process.port}/\n"
        assert process.request("/").status_code == 200  # by the host [::1]:PORT
        body = {"prompt": "猫", "max_tokens": 1}
        assert process.request("/v1/completions", body).json()["usage"]["completion_tokens"] == 1
        own = {"Origin": process.address.rstrip("/")}
        assert process.request("/v1/completions", body, headers=own).status_code == 200
        other = {"Origin": "http://[::2]"}
        assert process.request("/v1/completions", body, headers=other).status_code == 403
        with ExitStack() as stack:
            if not is_open:
                stack.enter_context(pytest.raises(httpx.ConnectError))
            httpx.get(f"http://127.0.0.1:{process.port}/health").raise_for_status()
        assert process.end(signal.SIGTERM) == 0
        assert ("may use this server" in "".join(process.log)) == is_open


def _addresses(*names: str) -> Callable[..., list[Any]]:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (name, 0)) for name in names]
    return lambda *_, **__: [*found, *found]  # as a system may tell each twice


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is no address there")
def test_server_listens_at_every_address_of_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _addresses("127.0.0.1", "127.0.0.2"))
    with ExitStack() as stack:
        listeners = [stack.enter_context(each) for each in lifecycle._listen("localhost", 0)]
        [port] = {each.getsockname()[1] for each in listeners}
        assert {each.getsockname()[0] for each in listeners} == {"127.0.0.1", "127.0.0.2"}
        with pytest.raises(ArgumentError, match=str(port)):
            lifecycle._listen("localhost", port)


def test_address_of_another_machine_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _addresses("192.0.2.1", "127.0.0.1"))
    [listener] = lifecycle._listen("neko", 0)
    with listener:
        assert listener.getsockname()[0] == "127.0.0.1"
    monkeypatch.setattr(socket, "getaddrinfo", _addresses("192.0.2.1"))
    with pytest.raises(ArgumentError, match="neko"):
        lifecycle._listen("neko", 0)


def test_start_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import os, signal, sys, threading\n"
        "from gpt_neox_japanese.cli import main\n"
        "from gpt_neox_japanese.server import lifecycle\n"
        "say = lambda address: os.kill(os.getpid(), signal.SIGTERM)\n"
        "import gpt_neox_japanese.cli.serve as serve\n"
        "run = lifecycle.run_server\n"
        "lifecycle.run_server = lambda settings, load, announce: run(settings, load, say)\n"
        "try: main(['serve', '--port', '0', '--threads', '1'])\n"
        "finally: print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"
