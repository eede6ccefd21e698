"""The 2.7B shape in every engine: ours, transformers, llama.cpp, CTranslate2, OpenVINO, in one run.

    python benchmarks/engine_files.py DIR --vocabulary DIR
    python benchmarks/bench_engines.py DIR [--rounds 3] [--prompts 2] [--formats bf16,int8,int4]

Of each format: tokens a second while 64 are written after a prompt of 32, and while a prompt of 512
is read; ours also with eight texts at once. Two threads, greedy, medians of rounds in which each
engine has its turn. Load time is that of the model alone, with its files in the page cache, without
importing the library; the peak is that of the process. OpenVINO computes the matrix products alone,
with random weights. Needs `pip install xllamacpp ctranslate2 openvino`; an engine that is not
installed, or that crashes with its first text, is left out.
"""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engines import EngineProcess
from harness import median, write_result

ENGINES = {
    "bf16": {
        "ours": "ours-bf16",
        "transformers": "ours-bf16",
        "llama.cpp": "llama-BF16.gguf",
        "openvino": "ours-bf16",
    },
    "int8": {
        "ours": "ours-int8",
        "llama.cpp": "llama-Q8_0.gguf",
        "ctranslate2": "ctranslate2-int8",
        "openvino": "ours-int8",
    },
    "int4": {"ours": "ours-int4", "llama.cpp": "llama-Q4_0.gguf", "openvino": "ours-int4"},
}
SHORT, LONG, TOKENS, TEXTS = 32, 512, 64, 8
Result = dict[str, Any]


def main() -> None:
    """Measure each format, print and write its result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="what engine_files.py made")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=2, help="rounds with a prompt of 512")
    parser.add_argument("--formats", default=",".join(ENGINES))
    arguments = parser.parse_args()
    packages = ["numba", "numpy", "torch", "transformers"]
    packages += [name for name in ("xllamacpp", "ctranslate2", "openvino") if is_installed(name)]
    for kind in arguments.formats.split(","):
        result = of_format(kind, arguments.directory, arguments.rounds, arguments.prompts)
        print(json.dumps({kind: result}, indent=2))
        print(write_result(f"engines-{kind}", packages, **result))


def of_format(kind: str, directory: Path, rounds: int, prompts: int) -> Result:
    """What every engine that reads this format reaches."""
    files = {name: directory / file for name, file in ENGINES[kind].items()}
    for path in files.values():
        warm(path)
    engines = []
    for name, path in files.items():
        if is_installed(name):
            try:
                engines.append(start(name, path))
            except RuntimeError as error:
                print(f"{kind}: {error}", flush=True)
    decode: dict[str, list[float]] = {engine.name: [] for engine in engines}
    prefill: dict[str, list[float]] = {engine.name: [] for engine in engines}
    eight: dict[str, list[float]] = {"ours": [], "openvino": []}
    for turn in range(1, rounds + 1):
        for engine in engines:
            decode[engine.name].append(engine.generate(prompt(turn, SHORT), TOKENS)[1])
        for engine in engines if turn <= prompts else ():
            prefill[engine.name].append(engine.generate(prompt(turn, LONG), 1)[0])
        for engine in engines:
            if engine.name in eight:
                eight[engine.name].append(engine.generate(prompt(turn, SHORT), TOKENS, TEXTS)[1])
    result = {
        engine.name: {
            "tokens_per_second": (TOKENS - 1) / median(decode[engine.name]),
            "prompt_tokens_per_second": LONG / median(prefill[engine.name]),
            "load_seconds": engine.load_seconds,
            "peak_gigabytes": engine.end(),
        }
        for engine in engines
    }
    for name, times in eight.items():
        if times:
            result[name]["tokens_per_second_of_eight"] = TEXTS * (TOKENS - 1) / median(times)
    return result


def start(name: str, path: Path) -> EngineProcess:
    """Load an engine, and write a first text, uncounted, that warms caches and compilers."""
    engine = EngineProcess(name, path)
    engine.generate(prompt(0, SHORT), 4)
    return engine


def is_installed(name: str) -> bool:
    """Whether an engine can be started."""
    package = {"llama.cpp": "xllamacpp", "ours": "gpt_neox_japanese"}.get(name, name)
    return find_spec(package) is not None


def prompt(turn: int, size: int) -> list[int]:
    """Ids that no other turn begins with."""
    return [(7919 * turn + 31 * i) % 30_000 + 500 for i in range(size)]


def warm(path: Path) -> None:
    """Read files, so that all engines load from memory."""
    for file in [path] if path.is_file() else path.iterdir():
        with file.open("rb") as stream:
            while stream.read(1 << 24):
                pass


if __name__ == "__main__":
    main()
