"""Text with the embedded model: our engine beside transformers, and how soon the command writes.

    python benchmarks/bench_generate.py [--rounds 7] [--tokens 200]

Both write the same number of tokens greedily after the same prompt, in float32.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import torch
from harness import interleaved, median, write_result

from gpt_neox_japanese import (
    GPTNeoXJapaneseForCausalLM,
    TextGenerator,
    default_model_directory,
)
from gpt_neox_japanese.inference.sampling import SamplingOptions

PROMPT = "ある日の暮方の事である。一人の男が"


def main() -> None:
    """Measure, print a table, write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=200)
    arguments = parser.parse_args()

    generator = TextGenerator.load()
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(
        default_model_directory(), dtype=torch.float32
    ).eval()
    ids = generator.codec.encode(PROMPT).tolist()
    greedy = SamplingOptions(temperature=0)
    engine = generator.engine

    def ours() -> list[int]:
        return list(engine.generate(ids, max_new_tokens=arguments.tokens, options=greedy))

    def theirs() -> list[int]:
        inputs = torch.tensor([ids])
        output = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            do_sample=False,
            min_new_tokens=arguments.tokens,
            max_new_tokens=arguments.tokens,
        )
        return output[0, len(ids) :].tolist()

    written = {"ours": len(ours()), "transformers": len(theirs())}
    seconds = interleaved({"ours": ours, "transformers": theirs}, arguments.rounds)
    rate = {name: written[name] / median(times) for name, times in seconds.items()}
    start = median([first_character() for _ in range(arguments.rounds)])

    for name, value in rate.items():
        print(f"{name:15}{value:10.1f} tokens/s")
    print(f"{'ratio':15}{rate['ours'] / rate['transformers']:10.2f}")
    print(f"{'first character':15}{start:10.2f} s after the command")
    path = write_result(
        "generate",
        ["torch", "transformers"],
        tokens_per_second=rate,
        ratio=rate["ours"] / rate["transformers"],
        seconds_to_first_character=start,
    )
    print(path)


def first_character() -> float:
    """Seconds from the start of `neox-ja generate` to the first byte it writes."""
    code = "from gpt_neox_japanese.cli import main; main()"
    command = [sys.executable, "-c", code, "generate", PROMPT, "--max-new-tokens", "5"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
