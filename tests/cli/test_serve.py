"""`neox-ja serve` as far as it goes without being started; `tests/server` starts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpt_neox_japanese.server import lifecycle
from gpt_neox_japanese.server.settings import ServerSettings
from tests.cli.run import assert_refused, run


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What servers were asked to start with."""
    calls: list[Any] = []
    monkeypatch.setattr(lifecycle, "run_server", lambda *given: calls.append(given))
    return calls


def test_without_options_it_serves_this_machine_alone(started: list[Any]) -> None:
    result = run("serve")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    settings = started[0][0]
    assert settings == ServerSettings(model_name="default")
    assert settings.host == "127.0.0.1"
    assert settings.api_key is None


def test_options_reach_the_server(started: list[Any]) -> None:
    options = {
        "--served-model-name": "neko",
        "--host": "0.0.0.0",
        "--port": "9000",
        "--api-key": "secret",
        "--max-queue": "7",
        "--max-body-size": "1000",
        "--request-timeout": "5",
        "--write-timeout": "2.5",
    }
    given = [part for option in options.items() for part in option]
    named = ["--allow-host", "a.example", "--allow-host", "b.example", "--allow-origin", "*"]
    result = run("serve", *given, *named)
    assert (result.exit_code, result.stderr) == (0, "")
    assert started[0][0] == ServerSettings(
        model_name="neko",
        host="0.0.0.0",
        port=9000,
        api_key="secret",
        allowed_hosts=("a.example", "b.example"),
        allowed_origins=("*",),
        max_queue=7,
        max_body_bytes=1000,
        request_timeout=5,
        write_timeout=2.5,
    )


def test_key_may_be_given_by_the_environment(
    started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEOX_JA_API_KEY", "secret")
    run("serve")
    assert started[0][0].api_key == "secret"
    run("serve", "--api-key", "mine")
    assert started[1][0].api_key == "mine"


@pytest.mark.parametrize("key", ["", " "])
def test_empty_key_of_the_environment_does_not_open_the_door(
    started: list[Any], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("NEOX_JA_API_KEY", key)
    assert_refused(run("serve", "--host", "0.0.0.0"), "NEOX_JA_API_KEY")
    assert not started


def test_open_door_is_warned_of(started: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    for options in ([], ["--host", "0.0.0.0", "--api-key", "x"], ["--host", "0.0.0.0"]):
        run("serve", *options)
        announce = started[-1][2]
        announce("http://127.0.0.1:8000/")
    ready, ready_too, ready_with_key, warning = capsys.readouterr().err.splitlines()
    assert ready == ready_too == ready_with_key
    assert ready == "neox-ja: default is ready: http://127.0.0.1:8000/"
    assert "--api-key" in warning


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "70000"], "--port"),
        (["--max-queue", "-1"], "--max-queue"),
        (["--request-timeout", "0"], "--request-timeout"),
        (["--allow-origin", "example.org"], "https://example.org"),
        (["--allow-origin", "https://example.org/"], "https://example.org"),
        (["--allow-origin", "https://"], "https://example.org"),
        (["--allow-origin", "https://*.example.org"], "https://example.org"),
        (["--allow-origin", "https://猫.example"], "xn--"),
        (["--allow-host", ""], "example.org"),
        (["--allow-host", "https://example.org"], "example.org"),
        (["--allow-host", "example.org/"], "example.org"),
        (["--allow-host", "*.example.org"], "example.org"),
        (["--allow-host", "猫.example"], "xn--"),
        (["--api-key", ""], "empty"),
        (["--api-key", "鍵"], "ASCII"),
        (["--api-key", "a\x07b"], "ASCII"),
        (["--api-key", "secret "], "ends with"),
        (["--api-key", "secret\n"], "ends with"),
        (["--host", "no.such.host.invalid", "--port", "0"], "no.such.host.invalid"),
        (["--host", "a" * 64, "--port", "0"], "a" * 64),
        (["--model", ""], "--model"),
    ],
)
def test_option_that_cannot_be_is_refused(options: list[str], said: str) -> None:
    assert_refused(run("serve", *options), said)


def test_model_that_cannot_be_opened_ends_it(tmp_path: Path) -> None:
    assert_refused(run("serve", "--port", 0, "--model", tmp_path), str(tmp_path))
    missing = tmp_path / "missing.jinja"
    assert_refused(run("serve", "--port", 0, "--chat-template", missing), "missing.jinja")


def test_directory_is_not_shown_to_clients(started: list[Any], tmp_path: Path) -> None:
    run("serve", "--model", tmp_path / ".")
    run("serve", "--model", "abeja/gpt-neox-japanese-2.7b")
    names = [settings.model_name for settings, *_ in started]
    assert names == [tmp_path.name, "abeja/gpt-neox-japanese-2.7b"]


def test_missing_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from gpt_neox_japanese.cli import main; main(['serve'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "pip install 'gpt-neox-japanese[server]'" in result.stderr
    assert result.stderr.count("\n") == 1
