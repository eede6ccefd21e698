"""Loading from a Hub: a server on this machine speaks its protocol.

The address of the Hub is read when huggingface_hub is imported, so each load is a fresh process.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from tests.model.conftest import MakeModel

REVISION = "0123456789abcdef0123456789abcdef01234567"
IDS = [[5, 6, 7, 8]]

LOAD = f"""
import sys, warnings, torch
warnings.simplefilter("ignore")
import gpt_neox_japanese
gpt_neox_japanese.register()
from transformers import AutoModelForCausalLM
results = {{}}
for name in ("whole", "sharded", "hostile"):
    try:
        model = AutoModelForCausalLM.from_pretrained("someone/" + name, cache_dir=sys.argv[1])
        assert type(model) is gpt_neox_japanese.GPTNeoXJapaneseForCausalLM, type(model)
        results[name] = model(torch.tensor({IDS})).logits.detach()
    except (OSError, ValueError) as error:
        results[name] = str(error)
torch.save(results, sys.argv[2])
"""


class Hub(BaseHTTPRequestHandler):
    """Public repositories someone/NAME: the files of directories NAME."""

    root: Path

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            content = self.describe(parts[3], tree="tree" in parts)
            return self.send(json.dumps(content).encode(), with_body=with_body)
        file = self.root / parts[1] / parts[-1]
        if "resolve" not in parts or not file.is_file():
            return self.send(b"", with_body=with_body, status=404)
        return self.send(file.read_bytes(), with_body=with_body)

    def describe(self, name: str, *, tree: bool) -> Any:
        files = [
            {key: file.name, "type": "file", "size": file.stat().st_size, "oid": "0" * 40}
            for key in ["path" if tree else "rfilename"]
            for file in sorted((self.root / name).iterdir())
        ]
        about = {"id": f"someone/{name}", "sha": REVISION, "tags": [], "siblings": files}
        return files if tree else about

    def send(self, content: bytes, *, with_body: bool, status: int = 200) -> None:
        start, end = 0, len(content)
        if wanted := self.headers.get("Range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            start, end = int(first), min(end, int(last) + 1) if last else end
            status = 206
        self.send_response(status)
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound")
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if with_body:
            self.wfile.write(content[start:end])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """The address of a Hub that publishes what is in `tmp_path / "published"`."""
    handler = type("PublishedHub", (Hub,), {"root": tmp_path / "published"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def publish(model: PreTrainedModel, published: Path) -> None:
    """A model in one file, the same in many, and one whose index points elsewhere."""
    model.save_pretrained(published / "whole")
    for name in ("sharded", "hostile"):
        model.save_pretrained(published / name, max_shard_size="20KB")
    index = published / "hostile/model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = dict.fromkeys(content["weight_map"], "../../../escaped.safetensors")
    index.write_text(json.dumps(content))
    shutil.copy(published / "whole/model.safetensors", published / "hostile/escaped.safetensors")


def test_models_are_loaded_from_a_hub_and_only_into_its_cache(
    tiny_model: MakeModel, hub: str, tmp_path: Path
) -> None:
    model = tiny_model()
    publish(model, tmp_path / "published")
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(tmp_path / "home"),
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", LOAD, str(tmp_path / "cache"), str(tmp_path / "results")]
    subprocess.run(command, env=environment, capture_output=True, timeout=300, check=True)
    results = torch.load(tmp_path / "results")
    expected = model(torch.tensor(IDS)).logits
    assert torch.equal(results["whole"], expected)
    assert torch.equal(results["sharded"], expected)
    assert isinstance(results["hostile"], str)
    escaped = [file.parent.name for file in tmp_path.rglob("escaped*")]
    assert escaped == ["hostile"]  # where it is published, and nowhere else
