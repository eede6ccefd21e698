"""What several tests need: the shared material, a small vocabulary, a small checkpoint."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, settings

from tests.hub import Hub

# Set before anything imports Hugging Face libraries: no test reaches another machine by accident.
os.environ["HF_HUB_OFFLINE"] = "1"

# An example may be the one that compiles a kernel, on a machine that does other things besides.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

SENTENCE = "吾輩は猫である。名前はまだ無い。"
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


@pytest.fixture(scope="session")
def tokenizer_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of the characters of SENTENCE."""
    # Here, for this file must set its variable before anything is imported.
    from gpt_neox_japanese.tokenizer.codec import Codec
    from tests.tokenizer.small import vocabulary

    directory = tmp_path_factory.mktemp("tokenizer")
    Codec(vocabulary(sorted(set(SENTENCE))), legacy=False).save(directory)
    return directory


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty documents of rising length."""
    file = tmp_path_factory.mktemp("corpus") / "works.jsonl"
    lines = ({"id": str(n), "text": SENTENCE * (n + 1)} for n in range(40))
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block is a document, and worth a worker; a line is joined from several chunks."""
    from gpt_neox_japanese.corpus import blocks, decompression, parts
    from gpt_neox_japanese.tokenization import encode_corpus

    monkeypatch.setattr(parts, "_BYTES_OF_LINES", 1)
    monkeypatch.setattr(decompression, "_CHUNK_BYTES", 20)
    monkeypatch.setattr(decompression, "_PACKED_BYTES", 20)
    monkeypatch.setattr(blocks, "_BYTES_PER_BLOCK", 1)
    monkeypatch.setattr(encode_corpus, "_BYTES_WORTH_A_WORKER", 1)


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """What lies at memory:// URLs; empty at first."""
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


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
