"""The engine beside programs that never wait: what it keeps of its speed, and what they keep.

    python benchmarks/bench_busy.py [MODEL] [--texts 1,8] [--tokens 100] [--rounds 7]

On each core runs one process that does nothing but compute. The engine, with a thread on each core,
then has a fair share of one half: a share of 1 means that it writes half as fast as alone. Threads
that wait for each other can lose far more: one that is set aside in the middle of a step holds up
all. Writes `results/busy.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from multiprocessing import get_context
from typing import Any

from harness import interleaved, median, write_result

from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint
from gpt_neox_japanese.inference.loading.load import load_engine
from gpt_neox_japanese.inference.sampling.params import SamplingParams
from gpt_neox_japanese.machine import usable_cores

GREEDY = SamplingParams(temperature=0)


class Others:
    """One process on each core, which counts as fast as it can while it is let."""

    def __init__(self) -> None:
        fresh = get_context("spawn")
        cores = sorted(os.sched_getaffinity(0))
        self._counts = fresh.RawArray("q", len(cores))
        self._processes = [
            fresh.Process(target=_count, args=(self._counts, index, core), daemon=True)
            for index, core in enumerate(cores)
        ]
        for process in self._processes:
            process.start()
        while not all(self._counts):
            time.sleep(0.01)
        self.tell(signal.SIGSTOP)

    def tell(self, number: signal.Signals) -> None:
        """Stop all of them, or let them go on."""
        for process in self._processes:
            assert process.pid is not None
            os.kill(process.pid, number)

    @property
    def count(self) -> int:
        """How far they are."""
        return sum(self._counts)

    def rate(self, seconds: float) -> float:
        """Counts a second when nothing else runs."""
        begin, start = self.count, time.perf_counter()
        self.tell(signal.SIGCONT)
        time.sleep(seconds)
        self.tell(signal.SIGSTOP)
        return (self.count - begin) / (time.perf_counter() - start)


def _count(counts: Any, index: int, core: int) -> None:
    os.sched_setaffinity(0, [core])
    while True:
        for _ in range(1000):
            pass
        counts[index] += 1


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="default")
    parser.add_argument("--texts", default="1,8")
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    counts = [int(part) for part in arguments.texts.split(",")]
    engine = load_engine(Checkpoint.open(arguments.model), stop_ids=[], slots=max(counts))
    others = Others()

    def write(texts: int) -> None:
        streams = [
            engine.submit([1 + text], max_new_tokens=arguments.tokens, params=GREEDY)
            for text in range(texts)
        ]
        for stream in streams:
            for _ in stream:
                pass

    theirs: dict[int, list[float]] = {texts: [] for texts in counts}

    def write_beside(texts: int) -> None:
        begin, start = others.count, time.perf_counter()
        others.tell(signal.SIGCONT)
        write(texts)
        others.tell(signal.SIGSTOP)
        theirs[texts].append((others.count - begin) / (time.perf_counter() - start))

    runs = {}
    for texts in counts:
        runs[f"{texts} alone"] = lambda texts=texts: write(texts)
        runs[f"{texts} beside"] = lambda texts=texts: write_beside(texts)
    seconds = interleaved(runs, arguments.rounds)
    full_rate = others.rate(3)
    others.tell(signal.SIGKILL)  # who is stopped cannot be asked to end
    result = {}
    for texts in counts:
        alone, beside = (
            texts * arguments.tokens / median(seconds[f"{texts} {how}"])
            for how in ("alone", "beside")
        )
        result[f"{texts} texts"] = {
            "tokens_per_second_alone": round(alone, 1),
            "tokens_per_second_beside": round(beside, 1),
            "of_a_fair_share": round(beside / alone * 2, 3),
            "others_of_theirs": round(median(theirs[texts][1:]) / full_rate * 2, 3),
        }
    print(json.dumps(result, indent=2))
    facts = {"model": arguments.model, "cores": usable_cores(), "processes_beside": usable_cores()}
    print(write_result("busy", ["numba", "numpy"], **facts, results=result))


if __name__ == "__main__":
    main()
