"""What a server survives: clients that break off, overload, hours of mixed load, SIGTERM.

    python benchmarks/server_endurance.py [--clients 10000] [--minutes 30]

Serves the model in the package and writes `results/server_endurance.json`:

- clients that break off in the middle of a request, before an answer, in prefill, while streaming:
  after them no slot is taken, the processor is idle, and memory is what it was after a tenth;
- ten times as many requests at once as the server takes: nothing but 200, 429 and 503, and every
  text that was served is what the same request gives alone;
- mixed load: every answer is what the same request gives alone; memory's growth an hour;
- SIGTERM under load: exit status, seconds, and events that were torn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import time
from collections import Counter
from typing import Any

import numpy as np
import psutil
from harness import write_result
from servers import Server, get

SLOTS, QUEUE = 8, 16
TEXT = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"
Result = dict[str, Any]


def main() -> None:
    """Run all four, print each, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=30)
    arguments = parser.parse_args()
    result: Result = {}
    server = Server("ours", "default", SLOTS, "--max-queue", str(QUEUE))
    try:
        alone = asyncio.run(each_alone(server))
        parts = {
            "overload": overload(server, alone),
            "breaking_off": breaking_off(server, arguments.clients),
            "mixed_load": mixed_load(server, alone, arguments.minutes * 60),
            "sigterm": terminated_under_load(server),
        }
        for name, part in parts.items():
            result[name] = asyncio.run(part)
            print(name, json.dumps(result[name], indent=2), flush=True)
    finally:
        server.process.kill()
    print(write_result("server_endurance", ["numba", "numpy", "starlette", "uvicorn"], **result))


# ---- Requests ------------------------------------------------------------------------------------


def bodies() -> list[dict[str, Any]]:
    """Requests of all kinds. Each has a seed, so that its answer is certain."""
    chance = random.Random(0)
    kinds: list[dict[str, Any]] = [
        {},
        {"stream": True},
        {"stream": True, "logprobs": 3, "echo": True},
        {"logprobs": 1, "echo": True, "max_tokens": 0},
        {"n": 3, "temperature": 1.1},
        {"stop": ["。", "」"]},
        {"stream": True, "stop": "の", "token_details": True, "logprobs": 2},
        {"frequency_penalty": 0.5, "top_k": 40, "min_p": 0.02},
    ]
    made = []
    for number in range(48):
        start = chance.randrange(len(TEXT) - 4)
        prompt = TEXT[start:] * chance.choice([1, 1, 2, 12])  # some longer than a chunk of prefill
        tokens = chance.choice([1, 8, 40, 120])
        made.append(
            {"prompt": prompt, "max_tokens": tokens, "seed": number, **kinds[number % len(kinds)]}
        )
    return made


def head_of(content: bytes) -> bytes:
    """The head of a completion's request."""
    return (
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(content)}\r\n\r\n"
    ).encode()


async def ask(port: int, body: dict[str, Any]) -> tuple[int, Any]:
    """Status, and what was answered without what differs from time to time."""
    content = json.dumps(body).encode()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head_of(content) + content)
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    except OSError:
        return 0, None
    if not head:
        return 0, None
    status = int(head.split()[1])
    if b"chunked" in head.lower():
        rest = unchunked(rest)
    if body.get("stream") and status == 200:
        lines = [line[6:] for line in rest.decode().split("\n") if line.startswith("data: ")]
        assert lines[-1] == "[DONE]", lines[-1:]
        return status, [json.loads(line)["choices"] for line in lines[:-1]]
    return status, json.loads(rest).get("choices")


def unchunked(content: bytes) -> bytes:
    """A body without the lengths between its chunks."""
    parts = []
    while content:
        size, _, content = content.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            break
        parts.append(content[:length])
        content = content[length + 2 :]
    return b"".join(parts)


def flat(answer: Any) -> Any:
    """An answer whose chunks are put together: where they are cut depends on the clock."""
    if not answer or not isinstance(answer[0], list):
        return answer
    texts: dict[int, str] = {}
    details: dict[int, list[Any]] = {}
    for choices in answer:
        for choice in choices:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
            logprobs = choice.get("logprobs") or {}
            details.setdefault(choice["index"], []).extend(logprobs.get("token_logprobs") or [])
    return [texts, details]


async def each_alone(server: Server) -> list[tuple[dict[str, Any], Any]]:
    """Each request, and what it gives when nothing else runs."""
    found = []
    for body in bodies():
        status, answer = await ask(server.port, body)
        assert status == 200, (status, answer, body)
        found.append((body, flat(answer)))
    return found


async def gauges(port: int) -> dict[str, float]:
    """What the server says of texts that run and that wait."""
    text = (await get(port, "/metrics")).decode()
    return {
        name: float(re.search(rf"(?m)^neox_ja_{name}(?:_requests)? (\S+)", text).group(1))  # type: ignore[union-attr]
        for name in ("running", "waiting")
    }


# ---- Clients that break off ----------------------------------------------------------------------


async def breaking_off(server: Server, clients: int) -> Result:
    """What is left after so many."""
    chance = random.Random(1)
    moments: Counter[str] = Counter()
    left = iter(range(clients))
    process = psutil.Process(server.process.pid)
    memory: list[int] = []

    async def one_after_the_other() -> None:
        for number in left:
            if number in (clients // 10, clients - 1):
                memory.append(process.memory_info().rss)
            moment = chance.choice(["half a request", "at once", "in prefill", "while streaming"])
            moments[moment] += 1
            await break_off(server.port, moment, chance)

    await asyncio.gather(*(one_after_the_other() for _ in range(32)))
    start = time.perf_counter()
    while (running := await gauges(server.port)) != {"running": 0, "waiting": 0}:
        if time.perf_counter() - start > 10:
            break
        await asyncio.sleep(0.05)
    seconds = time.perf_counter() - start
    process.cpu_percent()
    await asyncio.sleep(3)
    return {
        "clients": clients,
        "moments": dict(moments),
        "left_after": running,
        "seconds_until_idle": seconds,
        "processor_percent_after": process.cpu_percent(),
        "memory_growth": memory[-1] / memory[0] - 1,
    }


async def break_off(port: int, moment: str, chance: random.Random) -> None:
    """One client."""
    body = {"prompt": TEXT * (20 if moment == "in prefill" else 1), "max_tokens": 300}
    body["stream"] = moment == "while streaming" or chance.random() < 0.5
    content = json.dumps(body).encode()
    whole = head_of(content) + content
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(whole[: chance.randrange(len(whole))] if "half" in moment else whole)
        if moment == "in prefill":
            await asyncio.sleep(chance.uniform(0, 0.05))
        elif moment == "while streaming":
            for _ in range(chance.randrange(30)):
                await asyncio.wait_for(reader.readline(), 1)
        if chance.random() < 0.5:
            writer.transport.abort()
        writer.close()
    except (OSError, TimeoutError):
        return


# ---- Load ----------------------------------------------------------------------------------------


async def overload(server: Server, alone: list[tuple[dict[str, Any], Any]]) -> Result:
    """Ten times what the server takes, at once, three times."""
    statuses: Counter[int] = Counter()
    wrong = 0
    for turn in range(3):
        many = [alone[(turn + i) % len(alone)] for i in range(10 * (SLOTS + QUEUE))]
        answers = await asyncio.gather(*(ask(server.port, body) for body, _ in many))
        statuses.update(status for status, _ in answers)
        wrong += sum(
            flat(answer) != expected
            for (status, answer), (_, expected) in zip(answers, many, strict=True)
            if status == 200
        )
    return {"statuses": {str(k): v for k, v in sorted(statuses.items())}, "wrong": wrong}


async def mixed_load(
    server: Server, alone: list[tuple[dict[str, Any], Any]], seconds: float
) -> Result:
    """Twelve clients that ask one thing after the other."""
    process = psutil.Process(server.process.pid)
    end = time.perf_counter() + seconds
    counts: Counter[str] = Counter()
    memory: list[tuple[float, int]] = []

    async def client(number: int) -> None:
        chance = random.Random(number)
        while time.perf_counter() < end:
            body, expected = chance.choice(alone)
            status, answer = await ask(server.port, body)
            right = status == 200 and flat(answer) == expected
            counts["right" if right else "wrong" if status == 200 else str(status)] += 1

    async def watch() -> None:
        while time.perf_counter() < end:
            memory.append((time.perf_counter(), process.memory_info().rss))
            await asyncio.sleep(1)

    await asyncio.gather(watch(), *(client(number) for number in range(12)))
    settled = memory[len(memory) // 4 :]
    at, size = (np.array(values, float) for values in zip(*settled, strict=True))
    slope = np.polyfit(at - at[0], size, 1)[0]
    return {
        "minutes": seconds / 60,
        "answers": dict(counts),
        "memory_megabytes": size[-1] / 1e6,
        "memory_growth_in_the_time": slope * seconds / size[0],
    }


async def terminated_under_load(server: Server) -> Result:
    """SIGTERM while streams run: how it ends, and whether a client sees half an event."""
    body = json.dumps({"prompt": TEXT, "max_tokens": 2000, "stream": True}).encode()
    torn = 0

    async def client() -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(head_of(body) + body)
        content = (await reader.read()).partition(b"\r\n\r\n")[2]
        writer.close()
        return unchunked(content).decode()

    clients = [asyncio.create_task(client()) for _ in range(SLOTS)]
    await asyncio.sleep(0.5)
    start = time.perf_counter()
    server.process.terminate()
    status = await asyncio.to_thread(server.process.wait, 30)
    seconds = time.perf_counter() - start
    for text in await asyncio.gather(*clients):
        events = text.split("\n\n")
        torn += events[-1] != ""
        for event in events[:-1]:
            data = event.partition("data: ")[2]
            if data and data != "[DONE]":
                json.loads(data)
    return {"exit_status": status, "seconds": seconds, "torn_events": torn, "streams": SLOTS}


if __name__ == "__main__":
    main()
