"""The server, and the `openai` package that asks it.

    python examples/openai_client.py

`neox-ja serve` runs beside this program; elsewhere it is another machine's, and `base_url` its
address. Needs `pip install ".[server]" openai`.
"""

from __future__ import annotations

import subprocess
import sys

from openai import OpenAI

NEOX_JA = [sys.executable, "-c", "from gpt_neox_japanese.cli import main; main()"]  # or: neox-ja

with subprocess.Popen(
    [*NEOX_JA, "serve", "--port", "0"], stderr=subprocess.PIPE, encoding="utf-8"
) as server:
    assert server.stderr is not None
    address = next(line.split()[-1] for line in server.stderr if " is ready: " in line)
    client = OpenAI(base_url=f"{address}v1", api_key="none")

    stream = client.completions.create(
        model="default", prompt="吾輩は猫である。", max_tokens=30, seed=1, stream=True
    )
    for chunk in stream:
        print(chunk.choices[0].text, end="", flush=True)
    print()

    # How likely is a text? Nothing is written; the scores are those of its own tokens.
    for text in ("吾輩は猫である。", "吾輩を猫である。"):
        answer = client.completions.create(
            model="default", prompt=text, max_tokens=0, echo=True, logprobs=0
        )
        logprobs = answer.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.token_logprobs is not None
        print(f"{text}  {sum(logprobs.token_logprobs[1:]):.1f}")
    server.terminate()
