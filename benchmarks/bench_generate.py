"""Writing text: the engine beside transformers' generate, and the 2.7B shape in every format.

    python benchmarks/bench_generate.py [small] [large] [--rounds 5] [--tokens 200]
        [--formats int4,int8,bfloat16] [--layers 32]

`small` takes the embedded model: both write the same number of tokens greedily after the same
prompt, in float32; and how soon the command shows its first character. `large` takes random weights
of the 2.7B shape, 5.3 GB of them in bfloat16, and measures the engine's network alone: one token at
a time, eight texts at once, and reading 512 tokens; beside the rate at which the same threads can
read memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import interleaved, median, write_result
from numpy.typing import NDArray

from gpt_neox_japanese import (
    GPTNeoXJapaneseForCausalLM,
    TextGenerator,
    default_model_directory,
)
from gpt_neox_japanese.inference.cpu.network import CompiledNetwork
from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint
from gpt_neox_japanese.inference.loading.hparams import HParams
from gpt_neox_japanese.inference.loading.load import load_engine
from gpt_neox_japanese.inference.loading.weight_map import Layer, Weights
from gpt_neox_japanese.inference.network import BatchToken
from gpt_neox_japanese.inference.sampling.params import SamplingParams
from gpt_neox_japanese.kernels.constants import GROUP
from gpt_neox_japanese.quantization.bfloat16_arrays import bfloat16_array
from gpt_neox_japanese.quantization.convert import of_floats
from gpt_neox_japanese.quantization.formats import Matrix

PROMPT = "ある日の暮方の事である。一人の男が"
Result = dict[str, Any]


def main() -> None:
    """Measure the parts that are asked for, print and write their results."""
    parts = {"small": small, "large": large}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=200, help="of small")
    parser.add_argument("--formats", default="int4,int8,bfloat16", help="of large")
    parser.add_argument("--layers", type=int, default=32, help="of large")
    arguments = parser.parse_args()
    for name in arguments.parts or parts:
        result = parts[name](arguments)
        print(json.dumps({name: result}, indent=2))
        print(
            write_result(f"generate-{name}", ["numba", "numpy", "torch", "transformers"], **result)
        )


# ---- The embedded model --------------------------------------------------------------------------


def small(arguments: argparse.Namespace) -> Result:
    """Tokens a second of both, and seconds to the first character of the command."""
    with of_floats(default_model_directory()) as floats:
        return small_of(floats, arguments)


def small_of(floats: Path, arguments: argparse.Namespace) -> Result:
    """The same, of a directory that both can read."""
    generator = TextGenerator.load(floats)
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(  # type: ignore[no-untyped-call]
        floats, dtype=torch.float32
    ).eval()
    ids = generator.codec.encode(PROMPT)
    greedy = SamplingParams(temperature=0)
    engine = load_engine(Checkpoint.open(floats), stop_ids=[])

    def ours() -> list[int]:
        request = engine.submit(ids, max_new_tokens=arguments.tokens, params=greedy)
        return [choice.id for choice in request]

    def theirs() -> list[int]:
        inputs = torch.tensor([ids])
        output = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            do_sample=False,
            min_new_tokens=arguments.tokens,
            max_new_tokens=arguments.tokens,
        )
        written: list[int] = output[0, len(ids) :].tolist()
        return written

    written = {"ours": len(ours()), "transformers": len(theirs())}
    seconds = interleaved({"ours": ours, "transformers": theirs}, arguments.rounds)
    rate = {name: written[name] / median(times) for name, times in seconds.items()}
    return {
        "tokens_per_second": rate,
        "ratio": rate["ours"] / rate["transformers"],
        "seconds_to_first_character": median([first_character() for _ in range(arguments.rounds)]),
    }


def first_character() -> float:
    """Seconds from the start of `neox-ja generate` to the first byte it writes of its own."""
    code = "from gpt_neox_japanese.cli import main; main()"
    command = [sys.executable, "-c", code, "generate", PROMPT, "--no-echo", "--max-new-tokens", "5"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        return time.perf_counter() - start


# ---- The 2.7B shape ------------------------------------------------------------------------------


def large(arguments: argparse.Namespace) -> Result:
    """Rates of each format with random weights."""
    return {name: of_format(name, arguments) for name in arguments.formats.split(",")}


def of_format(kind: str, arguments: argparse.Namespace) -> Result:
    """Tokens a second, and the share of the memory's rate that one token at a time reaches."""
    hparams = HParams.from_config({"num_hidden_layers": arguments.layers})
    weights = random_weights(hparams, kind)
    size = sum(matrix.nbytes for matrix in weights.matrices)
    network = CompiledNetwork(hparams, weights, slots=8, bfloat16_cache=True)
    position = iter(range(32, 2000))
    network.prefill([5] * 128, 0, 0)  # so that there is something to attend to
    for slot in range(1, 8):
        network.copy(0, slot, 128)

    def tokens(rows: int) -> None:
        at = 128 + next(position)
        network.decode([BatchToken(5, slot, at) for slot in range(rows)])

    runs = {
        "one": lambda: tokens(1),
        "eight": lambda: tokens(8),
        "memory": lambda: read_all(weights),
    }
    seconds = {name: median(times) for name, times in interleaved(runs, arguments.rounds).items()}
    start = time.perf_counter()
    network.prefill([5] * 512, 0, 0)
    prefill = 512 / (time.perf_counter() - start)
    return {
        "gigabytes_of_weights": size / 1e9,
        "tokens_per_second": 1 / seconds["one"],
        "tokens_per_second_of_eight": 8 / seconds["eight"],
        "eight_over_one": 8 * seconds["one"] / seconds["eight"],
        "gigabytes_per_second": size / seconds["one"] / 1e9,
        "gigabytes_per_second_of_memory": size / seconds["memory"] / 1e9,
        "prefill_tokens_per_second": prefill,
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "runs": network.description,
    }


def read_all(weights: Weights) -> None:
    """Read every byte once, with two threads."""

    def total(matrix: Matrix) -> int:
        return int(matrix.numbers.reshape(-1).view(np.int64).sum())

    with ThreadPoolExecutor(2) as pool:
        sum(pool.map(total, weights.matrices))


def random_weights(hparams: HParams, kind: str) -> Weights:
    """Weights of a shape in a format; a block of random numbers, repeated."""
    random = np.random.default_rng(0)
    hidden, width, last = (
        hparams.hidden_size,
        hparams.intermediate_size,
        hparams.num_hidden_layers - 1,
    )
    floats = bfloat16_array(0.02 * random.standard_normal(1 << 20).astype(np.float32))
    block: dict[str, NDArray[Any]] = {
        "bfloat16": floats,
        "int8": random.integers(-127, 128, 1 << 20, dtype=np.int8),
        "int4": random.integers(0, 256, 1 << 20, dtype=np.uint8),
    }

    def matrix(kind: str, outputs: int, columns: int) -> Matrix:
        size = outputs * columns // (2 if kind == "int4" else 1)
        numbers = np.resize(block[kind], size).reshape(outputs, -1)
        if kind == "int8":
            return Matrix(numbers, np.full(outputs, 0.02 / 60, np.float32))
        if kind == "int4":
            return Matrix(numbers, np.full((outputs, columns // GROUP), 0x3BA3, np.uint16))
        return Matrix(numbers)

    norm = np.stack([np.ones(hidden, np.float32), np.zeros(hidden, np.float32)])

    def layer(index: int) -> Layer:
        return Layer(
            input_norm=norm,
            query_key_value=matrix(kind, 3 * hidden, hidden),
            dense=matrix(kind, hidden, hidden),
            dense_bias=np.zeros(hidden, np.float32) if index == last else None,
            post_attention_norm=norm,
            up_proj=matrix(kind, width, hidden),
            down_proj=matrix(kind, hidden, width),
        )

    # As `neox-ja convert` writes it, the table is int8 beside int4 matrices.
    table = matrix("int8" if kind == "int4" else kind, hparams.vocab_size, hidden)
    return Weights(table, tuple(layer(i) for i in range(last + 1)), norm, table)


if __name__ == "__main__":
    main()
