"""The engines that are compared, each in a process of its own, so that its memory is its own.

`EngineProcess` starts `python engines.py NAME PATH` and asks it for text; one works at a time, and
those that wait use no processor.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["THREADS", "EngineProcess"]

THREADS = 2
CONTEXT = 640  # tokens that an engine must have room for
Times = tuple[float, float]
"""Seconds to the first token, and from there to the last."""
Generate = Callable[[list[int], int, int], Times]
"""Writes after a prompt so many tokens, in so many texts at once."""


class EngineProcess:
    """One engine with one model, loaded."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, __file__, name, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.load_seconds = self._answer()["load_seconds"]

    def generate(self, prompt: list[int], count: int, texts: int = 1) -> Times:
        """See `Times`."""
        assert self._process.stdin is not None
        request = {"prompt": prompt, "count": count, "texts": texts}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        first, rest = self._answer()["times"]
        return first, rest

    def end(self) -> float:
        """Gigabytes that it held at most."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        peak: float = self._answer()["peak_gigabytes"]
        self._process.wait()
        return peak

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"{self.name} ended with status {self._process.wait()}")


# ---- In the process ------------------------------------------------------------------------------


def ours(path: str) -> Generate:
    """The engine of this package."""
    from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint
    from gpt_neox_japanese.inference.loading.load import load_engine
    from gpt_neox_japanese.inference.sampling.params import SamplingParams

    engine = load_engine(Checkpoint.open(path), stop_ids=[], dtype="bfloat16", threads=THREADS)
    greedy = SamplingParams(temperature=0)

    def generate(prompt: list[int], count: int, texts: int) -> Times:
        start = time.perf_counter()
        # Unlike beginnings, or they would share their reading.
        requests = [
            engine.submit([10 + i, *prompt[1:]], max_new_tokens=count, params=greedy)
            for i in range(texts)
        ]
        for request in requests:
            next(request)
        first = time.perf_counter()
        written = sum(len(list(request)) for request in requests)
        assert written == (count - 1) * texts
        return first - start, time.perf_counter() - first

    return generate


def transformers(path: str) -> Generate:
    """The class that comes with transformers."""
    import torch
    from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseForCausalLM

    torch.set_num_threads(THREADS)
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(path, dtype=torch.bfloat16).eval()

    class Clock:
        """A streamer that notes when tokens come."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, _: torch.Tensor) -> None:
            self.times.append(time.perf_counter())

        def end(self) -> None:
            """Nothing is held back."""

    def generate(prompt: list[int], count: int, texts: int) -> Times:
        assert texts == 1
        clock, ids = Clock(), torch.tensor([prompt])
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=count,
            max_new_tokens=count,
            streamer=clock,
        )
        start, first, last = clock.times[0], clock.times[1], clock.times[-1]
        assert len(clock.times) == count + 1
        return first - start, last - first

    return generate


def llama_cpp(path: str) -> Generate:
    """llama.cpp, through xllamacpp."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.n_ctx = CONTEXT
    parameters.n_batch = parameters.n_ubatch = 512
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = THREADS
    parameters.warmup = False
    server = xllamacpp.Server(parameters)

    def generate(prompt: list[int], count: int, texts: int) -> Times:
        assert texts == 1
        answer = server.handle_completions(
            {
                "prompt": prompt,
                "n_predict": count,
                "temperature": 0,
                "ignore_eos": True,
                "cache_prompt": False,
            }
        )
        timings = answer["timings"]
        assert timings["prompt_n"] == len(prompt)
        assert timings["predicted_n"] == count
        # Its clock of the writing starts before the first token, which costs it nothing.
        return timings["prompt_ms"] / 1e3, timings["predicted_ms"] / 1e3

    return generate


def ctranslate2(path: str) -> Generate:
    """CTranslate2, which tells no times in between: what one token takes is the first's."""
    import ctranslate2 as package

    generator = package.Generator(path, "cpu", intra_threads=THREADS, compute_type="int8")

    def seconds(prompt: list[int], count: int) -> float:
        start = time.perf_counter()
        result = generator.generate_batch(
            [[f"<{i}>" for i in prompt]],
            min_length=count,
            max_length=count,
            include_prompt_in_result=False,
        )
        assert len(result[0].sequences_ids[0]) == count
        return time.perf_counter() - start

    def generate(prompt: list[int], count: int, texts: int) -> Times:
        assert texts == 1
        first = seconds(prompt, 1)
        return first, seconds(prompt, count) - first if count > 1 else 0.0

    return generate


def openvino(path: str) -> Generate:
    """OpenVINO, which computes the matrix products alone."""
    import openvino_products

    return openvino_products.load(path, THREADS)


def main(name: str, path: str) -> None:
    """Load, answer requests, and tell the peak when there are no more."""
    engines = {
        "ours": ours,
        "transformers": transformers,
        "llama.cpp": llama_cpp,
        "ctranslate2": ctranslate2,
        "openvino": openvino,
    }
    # What libraries print goes elsewhere.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values: object) -> None:
        print(json.dumps(values), file=answers, flush=True)

    start = time.perf_counter()
    generate = engines[name](path)
    answer(load_seconds=time.perf_counter() - start)
    for line in sys.stdin:
        request = json.loads(line)
        answer(times=generate(request["prompt"], request["count"], request["texts"]))
    answer(peak_gigabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)


if __name__ == "__main__":
    main(*sys.argv[1:])
