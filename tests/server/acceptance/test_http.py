"""What is seen without a library: curl, plain sockets, and a strict reader of headers."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import time
from typing import Any

import httpx
import pytest

from tests.server.acceptance.conftest import KEY
from tests.server.serving import Process, assert_error, serving

CAT = "吾輩は猫である。"
LONG: dict[str, Any] = {"prompt": CAT, "max_tokens": 400, "min_tokens": 400}
KEYED = {"Authorization": f"Bearer {KEY}"}


def curl(process: Process, path: str, *options: str) -> str:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    command = ["curl", "-sS", "-N", "--max-time", "60", process.address.rstrip("/") + path]
    return subprocess.run([*command, *options], check=True, capture_output=True, text=True).stdout


def post(process: Process, path: str, content: bytes, **headers: str) -> httpx.Response:
    given = {"content-type": "application/json", **headers}
    url = process.address.rstrip("/") + path
    return httpx.post(url, content=content, headers=given, timeout=60)


def wait_until_idle(process: Process) -> None:
    deadline = time.monotonic() + 20
    while process.metric("neox_ja_running") or process.metric("neox_ja_waiting"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---- Routes --------------------------------------------------------------------------------------


def test_the_server_says_on_one_line_where_the_page_is(home: Process) -> None:
    assert len(home.log) == 1
    assert re.fullmatch(r"neox-ja: .* http://127\.0\.0\.1:\d+/\n", home.log[0])


def test_curl_gets_a_text(home: Process) -> None:
    body = json.dumps({"prompt": CAT, "max_tokens": 4})
    answer = json.loads(
        curl(home, "/v1/completions", "-H", "Content-Type: application/json", "-d", body)
    )
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["finish_reason"] in ("length", "stop")


def test_curl_gets_a_stream_that_ends_with_done(home: Process) -> None:
    body = json.dumps({"prompt": CAT, "max_tokens": 4, "stream": True})
    text = curl(home, "/v1/completions", "-H", "Content-Type: application/json", "-d", body)
    events = [line for line in text.split("\n\n") if line]
    assert all(line.startswith(("data: ", ":")) for line in events)
    assert events[-1] == "data: [DONE]"


def test_headers_of_a_stream_keep_proxies_from_holding_it_back(home: Process) -> None:
    body = {"prompt": CAT, "max_tokens": 1, "stream": True}
    headers = home.request("/v1/completions", body).headers
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["x-accel-buffering"] == "no"
    assert headers["cache-control"] == "no-store"


def test_models_are_listed(home: Process, shared: Process) -> None:
    [model] = home.request("/v1/models").json()["data"]
    assert (model["id"], model["object"]) == ("default", "model")
    [named] = shared.request("/v1/models", headers=KEYED).json()["data"]
    assert named["id"] == "作家"
    assert shared.request("/v1/models/作家", headers=KEYED).status_code == 200


@pytest.mark.parametrize("name", ["prompt", "content"])
def test_text_and_tokens_change_into_each_other(home: Process, name: str) -> None:
    text = "雨が①降る。\n猫"
    split = home.request("/tokenize", {name: text}).json()
    assert split["count"] == len(split["tokens"]) == len(split["pieces"])
    assert "".join(piece["text"] for piece in split["pieces"]) == text
    joined = home.request("/detokenize", {"tokens": split["tokens"]}).json()
    assert joined[name] == split["normalized"]


def test_health_is_told_without_a_key(home: Process, shared: Process) -> None:
    for process in (home, shared):
        assert process.request("/health").json() == {"status": "ok"}


def test_metrics_are_prometheus_text(home: Process) -> None:
    answer = home.request("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    for name in ("running", "waiting", "prompt_tokens_total", "generation_tokens_total"):
        assert home.metric(f"neox_ja_{name}") >= 0
    for name in ("time_to_first_token", "request_duration"):
        assert f"neox_ja_{name}_seconds_bucket{{le=" in answer.text


def test_the_description_names_what_the_model_can(home: Process, shared: Process) -> None:
    paths = set(home.request("/openapi.json").json()["paths"])
    assert {"/v1/completions", "/v1/models", "/tokenize", "/detokenize", "/health"} <= paths
    with_chat = set(shared.request("/openapi.json", headers=KEYED).json()["paths"])
    assert with_chat - paths == {"/v1/chat/completions"}


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/v1", "/v1/embeddings", "/page/../app.py"])
def test_what_is_not_there_is_told_as_openai_tells_it(home: Process, path: str) -> None:
    assert_error(home.request(path), 404)


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize"])
def test_a_wrong_method_is_told_as_openai_tells_it(home: Process, path: str) -> None:
    answer = home.request(path)
    assert_error(answer, 405)
    assert answer.headers["allow"] == "POST"


# ---- Odd bodies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"prompt":' * 5_000,
        b'{"prompt": "a", "temperature": NaN}',
        b'{"prompt": "a", "temperature": 1e999}',
        b'{"prompt": "a", "seed": ' + b"9" * 10_000 + b"}",
        b'{"prompt": "\\ud83d"}',
        b'{"prompt": "\xff"}',
        b'"prompt"',
        b"null",
    ],
    ids=lambda content: content[:24].decode(errors="replace"),
)
def test_odd_json_is_a_400(home: Process, content: bytes) -> None:
    assert_error(post(home, "/v1/completions", content), 400)


def test_another_type_of_body_is_refused(home: Process) -> None:
    kind = {"content-type": "text/plain"}
    assert_error(post(home, "/v1/completions", b'{"prompt": "a"}', **kind), 415)


@pytest.mark.parametrize("has_length", [True, False])
def test_a_large_body_is_refused_with_and_without_its_length(
    shared: Process, has_length: bool
) -> None:
    content = b'{"prompt": "' + b"a" * 200_000 + b'"}'
    url = shared.address + "v1/completions"
    headers = {"content-type": "application/json", **KEYED}
    parts = (content[start : start + 9999] for start in range(0, len(content), 9999))
    given: Any = content if has_length else parts
    assert_error(httpx.post(url, content=given, headers=headers, timeout=60), 413)


# ---- Who may ask ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/openapi.json", "/no-such-path"])
@pytest.mark.parametrize("given", [{}, {"Authorization": "Bearer x"}, {"Authorization": KEY}])
def test_everything_but_the_page_asks_for_the_key(
    shared: Process, path: str, given: dict[str, str]
) -> None:
    answer = shared.request(path, headers=given)
    assert_error(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"


def test_the_page_is_there_without_the_key(shared: Process) -> None:
    assert shared.request("/").headers["content-type"].startswith("text/html")
    assert shared.request("/page/main.js").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example"])
def test_a_name_that_leads_here_is_not_answered(home: Process, host: str) -> None:
    assert_error(home.request("/", headers={"Host": host}), 403)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]:8000"])
def test_names_of_this_machine_are_answered(home: Process, host: str) -> None:
    assert home.request("/health", headers={"Host": host}).status_code == 200


def test_a_name_that_is_allowed_is_answered(shared: Process) -> None:
    assert shared.request("/health", headers={"Host": "write.example"}).status_code == 200


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data"])
def test_another_page_may_not_post(home: Process, kind: str) -> None:
    headers = {"content-type": kind, "origin": "https://evil.example"}
    assert_error(post(home, "/v1/completions", b'{"prompt": "a"}', **headers), 403)


def test_other_pages_may_read_only_where_it_was_asked_for(home: Process, shared: Process) -> None:
    def allowed(process: Process, origin: str) -> str | None:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = httpx.options(process.address + "v1/completions", headers=headers)
        return answer.headers.get("access-control-allow-origin")

    assert allowed(home, "https://write.example") is None
    assert allowed(shared, "https://write.example") == "https://write.example"
    assert allowed(shared, "https://evil.example") is None


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/health", "/no-such-path"])
def test_every_answer_has_strict_headers(home: Process, path: str) -> None:
    headers = home.request(path).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "server" not in headers


def test_the_page_loads_nothing_from_elsewhere(home: Process) -> None:
    page = home.request("/").text
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
    assert 'lang="ja"' in page


def test_an_id_of_the_client_comes_back_if_it_is_one(home: Process) -> None:
    def answered(given: str) -> str:
        headers = {"X-Request-Id": given}
        return str(home.request("/health", headers=headers).headers["x-request-id"])

    assert answered("abc-123") == "abc-123"
    assert answered("a" * 1000) != "a" * 1000
    assert len(answered("a b")) == 32


def test_typed_tags_stay_text(home: Process) -> None:
    for tag in ("<|endoftext|>", "<SP>", "<|byte10|>", "<BR>"):
        split = home.request("/tokenize", {"prompt": tag}).json()
        assert split["count"] > 1
        assert split["normalized"] == tag


# ---- Clients that leave, and too many of them ----------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_a_slot_is_free_at_once_when_its_client_leaves(home: Process, stream: bool) -> None:
    for body in ({**LONG, "n": 2}, {**LONG, "prompt": CAT * 70, "n": 2}):
        connection = home.connect("/v1/completions", {**body, "stream": stream})
        while not home.metric("neox_ja_running"):
            pass
        connection.close()
        before = home.metric("neox_ja_generation_tokens_total")
        wait_until_idle(home)
        assert home.metric("neox_ja_generation_tokens_total") - before < 2 * 400


def test_a_full_queue_is_told_with_the_time_to_come_again(home: Process) -> None:
    first = home.connect("/v1/completions", {**LONG, "n": 8, "stream": True})
    try:
        first.recv(100)
        answer = home.request("/v1/completions", {"prompt": CAT})
        error = assert_error(answer, 429)
        assert error["code"] == "queue_full"
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    finally:
        first.close()
    wait_until_idle(home)
    assert home.request("/v1/completions", {"prompt": CAT}).status_code == 200


def test_who_waits_is_told_his_place(home: Process) -> None:
    first = home.connect("/v1/completions", {**LONG, "n": 2, "stream": True})
    first.recv(100)
    with home.connect("/v1/completions", {**LONG, "stream": True}) as second:
        seen = b""
        while b": waiting 1\n\n" not in seen:
            part = second.recv(1000)
            assert part
            seen += part
    first.close()
    wait_until_idle(home)


def test_half_a_request_takes_nothing(home: Process) -> None:
    for part in (b"", b"POST /v1/comp", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"):
        with socket.create_connection(("127.0.0.1", home.port)) as connection:
            connection.sendall(part)
    assert home.request("/health").status_code == 200
    assert home.metric("neox_ja_running") == 0


# ---- The end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0_and_tears_no_event(number: signal.Signals) -> None:
    with serving("--slots", 2) as process:
        connection = process.connect("/v1/completions", {**LONG, "n": 40, "stream": True})
        received = connection.recv(100)
        begun = time.monotonic()
        assert process.end(number) == 0
        assert time.monotonic() - begun < 10
        while part := connection.recv(1 << 16):
            received += part
        connection.close()
    body = received.partition(b"\r\n\r\n")[2]
    data = b"".join(re.split(rb"\r?\n?[0-9a-f]+\r\n", body)).removesuffix(b"\r\n\r\n")
    events = [event for event in data.split(b"\n\n") if event.startswith(b"data: ")]
    assert events[-1].strip() == b"data: [DONE]"
    assert all(json.loads(event[6:]) for event in events[:-1])
    assert "stopp" in json.loads(events[-2][6:])["error"]["message"]


def test_no_log_holds_what_was_written() -> None:
    with serving("--log-requests") as process:
        for body in ({"prompt": "秘密の猫"}, {"prompt": ["秘密の猫", 5]}, {"秘密の猫": 1}):
            process.request("/v1/completions", body)
        process.request("/秘密の猫")
        assert process.end(signal.SIGTERM) == 0
        log = "".join(process.log)
    assert "POST /v1/completions 200" in log
    assert "秘密" not in log
    assert "%E7" not in log
