"""What serving costs, and our server beside llama.cpp's: loopback, two threads, one run.

    python benchmarks/bench_server.py small
    python benchmarks/engine_files.py DIR --vocabulary DIR
    python benchmarks/bench_server.py large DIR

`small` serves the model in the package and compares the total of 1, 8 and 32 streams with what
`TextGenerator` writes in a process of its own. The difference is HTTP, JSON and SSE, and the
client, which has the same cores. It also times the start to a healthy answer.

`large` serves the 2.7B shape in int8, beside llama.cpp's server with the same weights in Q8_0 and
as many slots: total tokens a second of 1, 8, 16 and 32 streams, the time to the first token of
eight streams that come at random, and a prompt of 1,024 tokens that comes a second time. Turns
alternate. Needs `pip install xllamacpp`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness import median, write_result
from servers import THREADS, Answer, Server, complete

Result = dict[str, Any]
LONG = 1024


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["small", "large"])
    parser.add_argument("directory", type=Path, nargs="?", help="what engine_files.py made")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    packages = ["numba", "numpy", "starlette", "uvicorn"]
    if arguments.what == "small":
        result = small(arguments.rounds)
    else:
        result = large(arguments.directory, arguments.rounds)
        packages.append("xllamacpp")
    print(json.dumps(result, indent=2))
    print(write_result(f"server-{arguments.what}", packages, **result))


# ---- Requests ------------------------------------------------------------------------------------


def prompt(turn: int, size: int, vocabulary: int) -> list[int]:
    """Ids that no other turn begins with."""
    return [(7919 * turn + 31 * i) % (vocabulary - 1000) + 500 for i in range(size)]


def request(ids: list[int], count: int) -> dict[str, Any]:
    """A request for so many tokens, never fewer; each server has its own word for that."""
    return {
        "prompt": ids,
        "max_tokens": count,
        "min_tokens": count,
        "ignore_eos": True,
        "temperature": 0.8,
        "top_p": 0.95,
        "seed": 1,
    }


async def together(port: int, requests: list[dict[str, Any]]) -> list[Answer]:
    """Ask for all at once."""
    return await asyncio.gather(*(complete(port, body) for body in requests))


def tokens_per_second(server: Server, requests: list[dict[str, Any]]) -> float:
    """The total of requests that come at once."""
    start = time.perf_counter()
    answers = asyncio.run(together(server.port, requests))
    seconds = time.perf_counter() - start
    written = sum(answer.usage["completion_tokens"] for answer in answers)
    assert all(answer.status == 200 for answer in answers), answers
    assert written == sum(body["max_tokens"] for body in requests), written
    return float(written / seconds)


# ---- The model in the package --------------------------------------------------------------------

_GENERATOR = """
import json, sys, time
from gpt_neox_japanese import TextGenerator
generator = TextGenerator.from_pretrained(threads=int(sys.argv[1]), slots=32)
for line in sys.stdin:
    requests = json.loads(line)
    start = time.perf_counter()
    streams = [
        generator.stream_details(
            body["prompt"], max_new_tokens=body["max_tokens"], min_new_tokens=body["min_tokens"],
            temperature=body["temperature"], top_p=body["top_p"], seed=body["seed"],
        )
        for body in requests
    ]
    written = sum(len(chunk.tokens) for stream in streams for chunk in stream)
    print(written / (time.perf_counter() - start), flush=True)
"""


def small(rounds: int) -> Result:
    """The share of the time that serving takes."""
    starts = []
    for _ in range(rounds):
        server = Server("ours", "default", 32)
        starts.append(server.seconds_to_start)
        assert server.end() == 0
    server = Server("ours", "default", 32)
    generator = subprocess.Popen(
        [sys.executable, "-c", _GENERATOR, str(THREADS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert generator.stdin is not None
    assert generator.stdout is not None
    result: Result = {"seconds_to_start": median(starts), "streams": {}}
    for streams in (1, 8, 32):
        served, direct = [], []
        for turn in range(rounds + 1):
            requests = [request(prompt(32 * turn + i, 32, 8000), 256) for i in range(streams)]
            served.append(tokens_per_second(server, requests))
            print(json.dumps(requests), file=generator.stdin, flush=True)
            direct.append(float(generator.stdout.readline()))
        result["streams"][streams] = {
            "tokens_per_second_served": median(served[1:]),
            "tokens_per_second_of_text_generator": median(direct[1:]),
            "cost_of_serving": 1 - median(served[1:]) / median(direct[1:]),
        }
    generator.stdin.close()
    assert server.end() == 0
    return result


# ---- Beside llama.cpp ----------------------------------------------------------------------------


def large(directory: Path, rounds: int) -> Result:
    """Both servers with the 2.7B shape, one after the other in turns; the other one waits idle."""
    servers = [
        Server("ours", directory / "ours-int8", 32),
        Server("llama.cpp", directory / "llama-Q8_0.gguf", 32),
    ]
    result: Result = {server.name: {"tokens_per_second": {}} for server in servers}
    for server in servers:
        tokens_per_second(server, [request(prompt(999, 8, 32000), 4)])
    for streams in (1, 8, 16, 32):
        totals: dict[str, list[float]] = {server.name: [] for server in servers}
        for turn in range(rounds):
            for server in servers:
                ids = [prompt(100 + 32 * turn + i, 16, 32000) for i in range(streams)]
                totals[server.name].append(
                    tokens_per_second(server, [request(each, 32) for each in ids])
                )
        for server in servers:
            result[server.name]["tokens_per_second"][streams] = median(totals[server.name])
    first: dict[str, list[float]] = {server.name: [] for server in servers}
    for turn in range(rounds):
        for server in servers:
            first[server.name] += asyncio.run(arriving(server.port, turn))
    again: dict[str, list[float]] = {server.name: [] for server in servers}
    for turn in range(rounds):
        for server in servers:
            body = request(prompt(300 + turn, LONG, 32000), 2)
            times = [asyncio.run(complete(server.port, body)).times[0] for _ in range(2)]
            again[server.name].append(times[1] / times[0])
    for server in servers:
        result[server.name] |= {
            "first_token_seconds_p50": statistics.median(first[server.name]),
            "first_token_seconds_p95": sorted(first[server.name])[
                round(0.95 * (len(first[server.name]) - 1))
            ],
            "prompt_seen_before": median(again[server.name]),
            "exit_status": server.end(),
        }
    return result


async def arriving(port: int, turn: int) -> list[float]:
    """Seconds to the first token of eight streams that come at random within some seconds."""
    chance = random.Random(turn)

    async def one(number: int) -> float:
        await asyncio.sleep(chance.uniform(0, 8))
        ids = prompt(500 + 8 * turn + number, chance.randrange(16, 200), 32000)
        return (await complete(port, request(ids, 24))).times[0]

    return await asyncio.gather(*(one(number) for number in range(8)))


if __name__ == "__main__":
    main()
