"""vLLM once, in a process of its own: `python vllm_offline.py MODEL RESULT [NAME=VALUE …]`.

Reads prompts from standard input, as a JSON list, and writes RESULT, a JSON object: what vLLM
writes after them greedily when it gets all of them (`batch`) and one at a time (`single`).
NAME=VALUE is an argument of vLLM's `LLM`, the value in JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TOKENS = 48


def main() -> None:
    """Run vLLM."""
    from vllm import LLM, SamplingParams

    model, result, *options = sys.argv[1:]
    prompts: list[str] = json.load(sys.stdin)
    arguments = {name: json.loads(value) for name, _, value in (o.partition("=") for o in options)}
    llm = LLM(model, dtype="float32", **arguments)
    greedy = SamplingParams(temperature=0, max_tokens=TOKENS)

    def write(some: list[str]) -> list[dict[str, Any]]:
        return [
            {
                "prompt_ids": list(each.prompt_token_ids),
                "ids": list(each.outputs[0].token_ids),
                "text": each.outputs[0].text,
            }
            for each in llm.generate(some, greedy, use_tqdm=False)
        ]

    answers = {"batch": write(prompts), "single": [write([prompt])[0] for prompt in prompts]}
    Path(result).write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":  # vLLM starts processes that import this file
    main()
