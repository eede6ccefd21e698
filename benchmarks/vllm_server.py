"""vLLM's server with one model, and what is asked of it; most checks return "N of N"."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Server", "ratio", "vllm_server"]

_GREEDY = {"temperature": 0, "repetition_penalty": 1.0, "top_p": 1.0}
_SECONDS = 600  # for the server to start

# Characters that the vocabulary writes as bytes, spaces and line breaks.
_CHOICES = (
    ["猫 と\n龘🐯"],
    ["한국 어\n\n", "العربية 語"],
    ["赤 い", "青\tい", "a b\nc"],
)
_REGEXES = (
    r"[ぁ-ん]{4} [ァ-ヴ]{3}\n[가-힣]{2}",
    r"(龘|𩸽){2} 年\n",
    r"第[0-9]{1,2}章\n [^\n]{5,10}。",
    r"[^a-z]{12}",
)
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "名 前": {"enum": ["龘 太郎", "𩸽\n花子"]},
        "年齢": {"type": "integer", "minimum": 10, "maximum": 99},
        "好物": {
            "type": "array",
            "items": {"enum": ["한국 料理", "寿 司"]},
            "minItems": 2,
            "maxItems": 2,
        },
        "一言": {"type": "string", "minLength": 5, "maxLength": 9},
    },
    "required": ["名 前", "年齢", "好物", "一言"],
    "additionalProperties": False,
}


def ratio(good: list[bool]) -> str:
    """`3 of 4`."""
    return f"{sum(good)} of {len(good)}"


class Server:
    """A server that answers; the model is called "neox"."""

    def __init__(self, address: str) -> None:
        self.address = address

    def complete(self, prompt: Any, **body: Any) -> Any:
        """The answer of `/v1/completions`."""
        return self.post("/v1/completions", {"model": "neox", "prompt": prompt} | body)

    def text(self, prompt: str, **body: Any) -> str:
        """The one text of an answer."""
        text: str = self.complete(prompt, **body)["choices"][0]["text"]
        return text

    def chunks(self, prompt: str, **body: Any) -> list[str]:
        """The pieces of a text that is streamed."""
        request = self._request(
            "/v1/completions", {"model": "neox", "prompt": prompt, "stream": True} | body
        )
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            lines = [line.decode().removeprefix("data: ").strip() for line in answer]
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return [choice["text"] for event in events for choice in event["choices"]]

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer of any route."""
        with urllib.request.urlopen(self._request(path, body), timeout=_SECONDS) as answer:
            return json.loads(answer.read())

    def _request(self, path: str, body: dict[str, Any]) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"}
        return urllib.request.Request(self.address + path, json.dumps(body).encode(), headers)

    # ---- Checks ----------------------------------------------------------------------------------

    def equal_texts(self, prompts: list[str], texts: list[str], tokens: int) -> str:
        """Greedy texts of one request with all prompts."""
        choices = self.complete(prompts, max_tokens=tokens, **_GREEDY)["choices"]
        found = [choice["text"] for choice in sorted(choices, key=lambda choice: choice["index"])]
        return ratio([a == b for a, b in zip(found, texts, strict=True)])

    def equal_prompt_ids(self, prompts: list[str], ids: list[list[int]]) -> str:
        """Ids of `/tokenize`, and the prompts that `/detokenize` makes of them."""
        good = []
        for prompt, expected in zip(prompts, ids, strict=True):
            body = {"model": "neox", "prompt": prompt, "add_special_tokens": False}
            good.append(self.post("/tokenize", body)["tokens"] == expected)
        return ratio(good)

    def whole_characters(self, prompts: list[str]) -> str:
        """Texts whose chunks hold whole characters, and are the text that comes in one piece."""
        good = []
        for seed, prompt in enumerate(prompts):
            wild = {"max_tokens": 64, "temperature": 1.6, "seed": seed}
            chunks = self.chunks(prompt, **wild)
            whole = self.text(prompt, **wild)
            broken = sum("\ufffd" in chunk for chunk in chunks) > whole.count("\ufffd")
            good.append("".join(chunks) == whole and not broken)
        return ratio(good)

    def largest_logprob_difference(self, prompts: list[str], ours: list[list[float]]) -> float:
        """Of the tokens of prompts, told by `echo`; the first has none."""
        largest = 0.0
        for prompt, expected in zip(prompts, ours, strict=True):
            body = {"max_tokens": 1, "echo": True, "logprobs": 1, **_GREEDY}
            told = self.complete(prompt, **body)["choices"][0]["logprobs"]["token_logprobs"]
            pairs = zip(told[1 : len(expected)], expected[1:], strict=True)
            largest = max([largest, *(abs(a - b) for a, b in pairs)])
        return largest

    def n_texts(self, prompt: str) -> str:
        """Three texts at once: all there, and the same ones again for the same seed."""
        body = {"n": 3, "max_tokens": 12, "temperature": 1.0, "seed": 1}
        first, again = (
            [choice["text"] for choice in self.complete(prompt, **body)["choices"]] for _ in "ab"
        )
        return ratio([len(set(first)) == 3, first == again])

    def stops(self, prompts: list[str], texts: list[str], tokens: int) -> str:
        """Texts that end before a stop string, where they would have gone on."""
        good = []
        for prompt, text in zip(prompts, texts, strict=True):
            found = self.text(prompt, max_tokens=tokens, stop=["。", "、"], **_GREEDY)
            good.append(found == re.split("[。、]", text)[0])
        return ratio(good)

    def grammars(self, prompts: list[str]) -> dict[str, str]:
        """Structured outputs, greedy and at random, that are what was asked for."""
        kinds: dict[str, list[bool]] = {"choice": [], "regex": [], "json": []}
        for number, prompt in enumerate(prompts):
            body = {"max_tokens": 200, "temperature": number % 2, "seed": number}

            def ask(body: dict[str, Any] = body, prompt: str = prompt, **outputs: Any) -> str:
                return self.text(prompt, structured_outputs=outputs, **body)

            kinds["choice"] += [ask(choice=choices) in choices for choices in _CHOICES]
            kinds["regex"] += [bool(re.fullmatch(regex, ask(regex=regex))) for regex in _REGEXES]
            kinds["json"].append(_is_valid(ask(json=_SCHEMA)))
        return {kind: ratio(good) for kind, good in kinds.items()}


def _is_valid(text: str) -> bool:
    """Whether a text is JSON of `_SCHEMA`."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    properties: dict[str, Any] = _SCHEMA["properties"]
    return (
        list(value) == list(properties)
        and value["名 前"] in properties["名 前"]["enum"]
        and 10 <= value["年齢"] <= 99
        and len(value["好物"]) == 2
        and set(value["好物"]) <= set(properties["好物"]["items"]["enum"])
        and 5 <= len(value["一言"]) <= 9
    )


@contextmanager
def vllm_server(model: Path, log: Path, *options: str) -> Iterator[Server]:
    """Serve a model until the block ends; not by `vllm serve`, which wants a package named vllm."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    module = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    arguments = ["--served-model-name", "neox", "--dtype", "float32", "--enforce-eager"]
    command = [sys.executable, *module, *arguments, "--host", "127.0.0.1", "--port", port, *options]
    server = Server(f"http://127.0.0.1:{port}")
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            _wait(server, process, log)
            yield server
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def _wait(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            with urllib.request.urlopen(server.address + "/health", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(1)
    raise TimeoutError(f"vLLM's server does not answer after {_SECONDS} seconds; see {log}")
