from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gpt_neox_japanese.server.api.submission import Submission
from gpt_neox_japanese.server.service import ServedModel
from tests.server.serving import Server, assert_error, events_of


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """What the server logged, and not the client of these tests."""
    ours = [record for record in caplog.records if record.name.startswith("gpt_neox_japanese")]
    return "\n".join(record.getMessage() for record in ours)


BODY = '{"prompt": "猫", "max_tokens": 1}'.encode()
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "10.1.2.3", "localhost."],
)
def test_addresses_and_localhost_are_known(server: Server, host: str) -> None:
    assert server.get("/health", host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example:8000", "", "127.0.0.1.nip.io", "[::1].evil.example"],
)
def test_another_name_is_refused(server: Server, host: str) -> None:
    for path in ("/health", "/", "/v1/models"):
        assert_error(server.get(path, host=host), 403, "--allow-host")


def test_named_hosts_are_known(model: ServedModel) -> None:
    server = Server(model, allowed_hosts=("neox.example",))
    assert server.get("/health", host="neox.example:443").status_code == 200
    assert server.get("/health", host="other.example").status_code == 403
    for given in ("NEOX.example", "neox.example:8443", "neox.example."):
        answer = Server(model, allowed_hosts=(given,)).get("/health", host="Neox.example:80")
        assert answer.status_code == 200
    for given in ("::1", "[fe80::1]:80"):
        assert Server(model, allowed_hosts=(given,)).get("/health", host="[::1]").status_code == 200
        assert Server(model, allowed_hosts=(given,)).get("/health", host="").status_code == 403
    anyone = Server(model, allowed_hosts=("*",))
    assert anyone.get("/health", host="other.example").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://localhost:9999"},
        {"origin": "null"},
        {"origin": "http://[broken"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
@pytest.mark.parametrize(
    "kind", ["application/json", "text/plain", "application/x-www-form-urlencoded"]
)
def test_other_pages_may_not_post(server: Server, headers: dict[str, str], kind: str) -> None:
    answer = server.ask(
        "POST", "/v1/completions", content=BODY, headers={"content-type": kind, **headers}
    )
    assert_error(answer, 403, "--allow-origin")
    assert "access-control-allow-origin" not in answer.headers


def test_own_page_may_post(server: Server) -> None:
    own = {"origin": "http://localhost", "sec-fetch-site": "same-origin", **JSON}
    answer = server.ask("POST", "/v1/completions", content=BODY, headers=own)
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


def test_named_origins_may_post_and_read(model: ServedModel) -> None:
    server = Server(model, allowed_origins=("https://desk.example",), api_key="secret")
    origin = {"origin": "https://desk.example"}
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    preflight = server.ask("OPTIONS", "/v1/completions", headers={**origin, **asked})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://desk.example"
    key = {"authorization": "Bearer secret"}
    answer = server.ask("POST", "/v1/completions", content=BODY, headers={**origin, **key, **JSON})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://desk.example"
    refused = server.ask("POST", "/v1/completions", content=BODY, headers={**origin, **JSON})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://desk.example"
    other = {"origin": "https://evil.example", **key, **JSON}
    assert server.ask("POST", "/v1/completions", content=BODY, headers=other).status_code == 403


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("https://Desk.Example", "https://desk.example"),
        ("HTTPS://desk.example:443", "https://desk.example"),
        ("http://desk.example:80", "http://desk.example"),
        ("http://desk.example:443", "http://desk.example:443"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("moz-extension://0b1c-2d", "moz-extension://0b1c-2d"),
    ],
)
def test_origins_are_known_as_browsers_write_them(
    model: ServedModel, given: str, sent: str
) -> None:
    server = Server(model, allowed_origins=(given,))
    answer = server.ask("POST", "/v1/completions", content=BODY, headers={"origin": sent, **JSON})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == sent


def test_preflight_of_other_pages_allows_nothing(server: Server) -> None:
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answer = server.ask("OPTIONS", "/v1/completions", headers=headers)
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_key_is_asked_for_everywhere_but_health_and_page(
    model: ServedModel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = Server(model, api_key="ひみつ".encode().hex())
    for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing", "/v1/completions", "/page"):
        for given in ("", "Bearer", "Bearer wrong", "Bearer " + "é" * 9, "Basic e38", "e38"):
            answer = server.ask("GET", path, headers={"authorization": given.encode("utf-8")})
            error = assert_error(answer, 401, "Authorization: Bearer")
            assert error["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"
    assert server.get("/health").status_code == 200
    assert server.get("/").status_code in (200, 404)
    assert server.get("/page/nothing.js").status_code == 404
    assert (
        server.get("/v1/models", authorization=f"bearer {'ひみつ'.encode().hex()}").status_code
        == 200
    )
    assert "ひみつ".encode().hex() not in caplog.text + repr(server.service.settings)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"prompt"',
        b"\xff\xfe",
        b'{"prompt": "\xed\xa0\x80"}',
        rb'{"prompt": "\ud800"}',
        rb'{"tokens": ["\udc00"]}',
        b'{"other": NaN}',
        b'{"other": -Infinity}',
        b'{"other": ' + b"9" * 10_000 + b"}",
        b"[" * 100_000,
        b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"prompt": "x", "other": ' + b'{"a":' * 100_000,
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
def test_hostile_json_is_refused(server: Server, body: bytes) -> None:
    for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
        assert_error(server.ask("POST", path, content=body, headers=JSON), 400)


@pytest.mark.parametrize(
    "field",
    [
        b'"temperature": NaN',
        b'"temperature": Infinity',
        b'"temperature": 1e999',
        b'"temperature": -1e999',
        b'"temperature": ' + b"9" * 4_000,
        b'"logit_bias": {"5": -1e999}',
        b'"seed": ' + b"9" * 10_000,
        b'"seed": ' + b"9" * 4_000,
        b'"seed": 1e999',
        b'"max_tokens": ' + b"9" * 4_000,
        b'"prompt": [' + b"9" * 4_000 + b"]",
        b'"prompt": [1e999]',
        rb'"stop": "\ud800"',
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
def test_hostile_number_is_refused(server: Server, field: bytes) -> None:
    body = b'{"prompt": "x", ' + field + b"}"
    assert_error(server.ask("POST", "/v1/completions", content=body, headers=JSON), 400)


def test_number_of_a_field_that_is_ignored_may_be_any_json(server: Server) -> None:
    server.complete(prompt="猫", max_tokens=1, other=[1e308, {"a": [[[]]]}])


def test_body_that_is_no_json_is_refused(server: Server) -> None:
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ):
        answer = server.ask(
            "POST", "/tokenize", content=b'{"prompt":""}', headers={"content-type": kind}
        )
        assert_error(answer, 415, "application/json")
    charset = {"content-type": "Application/JSON; charset=utf-8"}
    answer = server.ask("POST", "/tokenize", content=b'{"prompt":""}', headers=charset)
    assert answer.status_code == 200


def test_body_too_large_is_refused_with_and_without_its_length(model: ServedModel) -> None:
    server = Server(model, max_body_bytes=1000)

    async def parts() -> object:  # sent in chunks, without Content-Length
        for _ in range(20):
            yield b" " * 100

    for content in (b" " * 1001, parts()):
        answer = server.ask("POST", "/v1/completions", content=content, headers=JSON)
        error = assert_error(answer, 413, "1000 bytes")
        assert error["code"] == "body_too_large"
    fits = BODY + b" " * (1000 - len(BODY))
    assert server.ask("POST", "/v1/completions", content=fits, headers=JSON).status_code == 200


def test_unknown_path_and_method_are_told_as_errors(server: Server) -> None:
    for path in (
        "/nothing",
        "/docs",
        "/redoc",
        "/v1",
        "/page/nothing",
        "/page/../app.py",
        "/tokenize/",
    ):
        assert_error(server.get(path), 404)
    assert_error(server.get("/page/%00"), 404)
    assert_error(server.get("/v1/models/unknown"), 404)
    answer = server.get("/v1/completions")
    assert_error(answer, 405, "Allow")
    assert answer.headers["allow"] == "POST"
    assert_error(server.ask("DELETE", "/v1/models"), 405)
    assert_error(server.ask("BREW", "/v1/completions"), 405)


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/nothing", "/"])
def test_every_answer_has_the_strict_headers(server: Server, path: str) -> None:
    headers = server.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] in ("no-store", "no-cache")
    assert "server" not in headers


def test_request_id_is_the_clients_where_it_is_one(server: Server) -> None:
    assert (
        server.get("/health", **{"x-request-id": "abc-1.2:3_4"}).headers["x-request-id"]
        == "abc-1.2:3_4"
    )
    for given in ("a" * 129, "a b", "<script>", "猫".encode().decode("latin-1"), ""):
        answer = server.ask("GET", "/health", headers={"x-request-id": given.encode("latin-1")})
        assert len(answer.headers["x-request-id"]) == 32
        assert answer.headers["x-request-id"] != given


def test_failure_of_ours_tells_and_logs_nothing_of_the_prompt(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*given: Any) -> None:
        [submission] = [each for each in given if isinstance(each, Submission)]
        raise RuntimeError(submission.prompts[0])

    server = Server(model)
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("gpt_neox_japanese.server.api.submission._begin", fail)
    secret = "秘密" * 2
    answer = server.post("/v1/completions", {"prompt": secret})
    error = assert_error(answer, 500)
    assert error["type"] == "server_error"
    assert secret not in answer.text + logged(caplog)
    assert "RuntimeError" in caplog.text
    assert answer.headers["x-request-id"] in caplog.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_failure_of_ours_in_a_stream_is_found_in_the_log_by_its_id(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "秘密" * 2

    def fail(*_: object) -> None:
        raise RuntimeError(secret)

    monkeypatch.setattr("gpt_neox_japanese.server.api.completions._CompletionFormat.part", fail)
    answer = Server(model).post("/v1/completions", {"prompt": "猫", "stream": True})
    [event] = events_of(answer.text)
    assert event["error"]["message"] == "the server failed at this request; its log says where"
    assert f"RuntimeError in a request, id={answer.headers['x-request-id']}" in logged(caplog)
    assert secret not in answer.text + logged(caplog)


def test_log_holds_neither_prompts_nor_paths_of_clients(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.complete(prompt="秘密の文", max_tokens=1)
    server.post("/v1/completions", {"prompt": "秘密の文", "temperature": "秘密の文"})
    server.get("/%E7%A7%98%E5%AF%86%0Aneox-ja: forged")
    log = logged(caplog)
    assert "/v1/completions 200" in log
    assert "other 404" in log
    assert "秘密" not in log
    assert "forged" not in log


def test_page_is_served_with_the_right_types(server: Server) -> None:
    kinds = {
        "/": "text/html; charset=utf-8",
        "/page/main.js": "text/javascript; charset=utf-8",
        "/page/desk.css": "text/css; charset=utf-8",
        "/page/icon.svg": "image/svg+xml",
    }
    for path, kind in kinds.items():
        answer = server.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        assert answer.headers["cache-control"] == "no-cache"
        if path != "/":
            known = {"if-none-match": answer.headers["etag"]}
            assert server.get(path, **known).status_code == 304


@pytest.mark.parametrize("path", ["/", "/page/main.js"])
def test_page_is_sent_whole_whatever_part_is_asked_for(server: Server, path: str) -> None:
    whole = server.get(path)
    for part in ("bytes=0-1", "bytes=abc", "bytes=999999999-", "lines=1-2"):
        answer = server.get(path, range=part)
        assert (answer.status_code, answer.content) == (200, whole.content)


def test_body_in_small_parts_is_not_waited_for_longer(model: ServedModel) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b" "
            await asyncio.sleep(0.05)

    server = Server(model, request_timeout=0.2)
    assert_error(server.ask("POST", "/tokenize", content=parts()), 408)
