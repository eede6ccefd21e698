"""Two started servers: as a writer starts one at home, and as somebody opens one to others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.server.serving import Process, serving

KEY = "一つの鍵".encode().hex()
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}：{{ message.content }}{{ eos_token }}\n"
    "{% endfor %}assistant："
)


@pytest.fixture(scope="package")
def home() -> Iterator[Process]:
    """`neox-ja serve`, with few slots so that they can be filled."""
    with serving("--slots", 2, "--max-queue", 6) as started:
        yield started


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server with a key, a chat template, a name, another page that may use it."""
    template: Path = tmp_path_factory.mktemp("chat") / "template.jinja"
    template.write_text(TEMPLATE, encoding="utf-8")
    with serving(
        *("--served-model-name", "作家", "--chat-template", template, "--max-body-size", 100_000),
        *("--allow-origin", "https://write.example", "--allow-host", "write.example"),
        NEOX_JA_API_KEY=KEY,
    ) as started:
        yield started


@pytest.fixture(scope="package")
def client(home: Process) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=home.address + "v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="package")
def chat(shared: Process) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=shared.address + "v1", api_key=KEY, max_retries=0) as made:
        yield made
