"""llama.cpp's server, of the package xllamacpp, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Keys and values in float32, as ours are.
_PROGRAM = """
import sys
import xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1]
parameters.n_ctx = 512
parameters.n_parallel = 1
parameters.n_gpu_layers = 0
parameters.warmup = False
parameters.cpuparams.n_threads = 1
parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
server = xllamacpp.Server(parameters)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


class LlamaServer:
    """A model that llama.cpp has loaded."""

    def __init__(self, address: str) -> None:
        self._address = address

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        body = {"content": text, "add_special": False, "parse_special": parse_special}
        tokens: list[int] = self._post("/tokenize", body)["tokens"]
        return tokens

    def detokenize(self, ids: list[int]) -> str:
        return str(self._post("/detokenize", {"tokens": ids})["content"])

    def greedy(self, prompt: str | list[int], count: int) -> tuple[list[int], str]:
        """The most likely ids, and their text."""
        body = {
            "prompt": prompt,
            "n_predict": count,
            "return_tokens": True,
            "samplers": ["top_k"],
            "top_k": 1,
            "repeat_penalty": 1.0,
            "cache_prompt": False,
        }
        result = self._post("/completion", body)
        return result["tokens"], result["content"]

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._address + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())


@contextmanager
def llama_server(file: Path) -> Iterator[LlamaServer]:
    """Run a GGUF file until the block ends."""
    command = [sys.executable, "-c", _PROGRAM, str(file)]
    log = file.with_suffix(".log")
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            assert address, log.read_text(errors="replace")[-3000:]
            yield LlamaServer(address)
        finally:
            process.kill()
