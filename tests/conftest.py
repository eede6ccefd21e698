"""What several tests need: the shared material, a small vocabulary, a small checkpoint."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.hub import Hub

# Set before anything imports Hugging Face libraries: no test reaches another machine by accident.
os.environ["HF_HUB_OFFLINE"] = "1"

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def reference_directory() -> Path:
    """The published vocabulary."""
    directory = SHARED / "reference"
    if not directory.is_dir():
        pytest.skip("needs the published vocabulary in ../shared/reference")
    return directory


@pytest.fixture(scope="session")
def corpus_directory() -> Path:
    """The Aozora corpus."""
    directory = SHARED / "corpus"
    if not directory.is_dir():
        pytest.skip("needs the Aozora corpus in ../shared/corpus")
    return directory


@pytest.fixture
def hub_requests() -> list[str]:
    """Names of the files that were fetched from `hub`."""
    return []


@pytest.fixture
def hub(tmp_path: Path, hub_requests: list[str]) -> Iterator[str]:
    """The address of a Hub that publishes what is in `tmp_path / "published"`."""
    attributes = {"root": tmp_path / "published", "sent": hub_requests}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("PublishedHub", (Hub,), attributes))
    threading.Thread(target=server.serve_forever).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
