"""Our tokenizer beside transformers' own and beside other tokenizers.

    python benchmarks/bench_tokenizer.py CORPUS... --reference DIR
        [--peers DIR] [--rounds 5] [--megabytes 20]

`--reference` is the directory of the published vocabulary, `--peers` what `peers.py` has trained.
Every round encodes other paragraphs, none of which stands twice, so that no cache flatters. Those
who are slow get the beginning of the same text; rates are per byte. One thread unless said
otherwise, and then pinned to one core, because some peers start threads whatever they are
told; transformers' side is the class that it comes with.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

os.environ["RAYON_NUM_THREADS"] = "1"  # before any peer is imported
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import chain, cycle, islice, product
from pathlib import Path

from harness import interleaved, median, write_result
from peers import PACKAGES, load_peers, paragraphs
from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseTokenizer as InTreeTokenizer

from gpt_neox_japanese import Codec, GPTNeoXJapaneseTokenizer

PROMPT = 49  # characters
REFERENCE_BYTES = 300_000
SLOW_BYTES = 4_000_000
SLOW = ("tiktoken", "tokenizers")
WARM_UP = "吾輩は猫である。名前はまだ無い。\n" * 1000  # enough for the kernel to be loaded

# Repeated, each is the worst that a naive way of searching something could meet.
HOSTILE = {
    "hiragana": "あ",
    "one kanji": "猫",
    "spaces": " ",
    "line breaks": "\r\n",
    "less-than signs": "<",
    "beginnings of tags": "<|endoftext",
    "tags": "<|endoftext|>",
    "flags that overlap": "🇦🇺🇸",
    "one regional indicator": "🇯",
    "joined emoji": "👩\u200d",
    "skin tones": "👍🏽🏽",
    "beginnings of kaomoji": "(^_",
    "bytes": "한",
    "box drawing": "─",
    "letters without @": "a",
    "at signs": "a@",
    "beginnings of URLs": "http://",
    "digits": "1",
    "groups of digits": "1,000",
    "years": "1999年",
}


def main() -> None:
    """Measure everything, print it and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", nargs="+", type=Path)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=float, default=20)
    options = parser.parse_args()

    slices = list(islice(paragraphs(options.corpus, options.megabytes), options.rounds + 1))
    theirs = InTreeTokenizer(
        str(options.reference / "vocab.txt"), str(options.reference / "emoji.json")
    )
    ours = GPTNeoXJapaneseTokenizer.from_pretrained(options.reference)
    ours.codec.encode(WARM_UP)
    result: dict[str, Any] = {}
    for name, measure in {
        "encode": lambda: encoding(ours.codec, theirs, slices, options),
        "prompt_of_49_characters": lambda: prompts(ours, theirs, slices[0], options.rounds),
        "batch_of_10000_short_lines": lambda: short_lines(ours, theirs, slices),
        "decode": lambda: decoding(ours, theirs, slices[0], options.rounds),
        "load": lambda: loading(options.reference, options.rounds),
        "hostile": lambda: hostile(options.reference),
    }.items():
        result[name] = measure()  # type: ignore[no-untyped-call]
        print(name)
        for key, value in result[name].items():
            print(f"    {key:50} {value}")
    packages = [*PACKAGES, "numba", "transformers"] if options.peers else ["numba", "transformers"]
    print(write_result("tokenizer", packages, **result))


def encoding(
    codec: Codec, theirs: Any, slices: list[list[str]], options: argparse.Namespace
) -> dict[str, Any]:
    """Megabytes of UTF-8 a second."""
    texts = ["\n".join(lines) for lines in slices]
    utf8 = {text: text.encode() for text in texts}
    sizes = list(map(len, utf8.values()))
    cores = os.sched_getaffinity(0)

    def on_all_cores(run: Callable[..., object]) -> Callable[..., object]:
        def unpinned(*arguments: object) -> None:
            os.sched_setaffinity(0, cores)
            run(*arguments)
            os.sched_setaffinity(0, {min(cores)})

        return unpinned

    os.sched_setaffinity(0, {min(cores)})
    encoders: dict[str, Callable[[list[str], str], object]] = {
        "ours": lambda _, text: codec.encode_to_numpy(text),
        "ours, bytes": lambda _, text: codec.encode_bytes(utf8[text], num_threads=1),
        "ours, bytes, two threads": on_all_cores(
            lambda _, text: codec.encode_bytes(utf8[text], num_threads=2)
        ),
        "ours, lines in one thread": lambda lines, _: codec.encode_batch_to_numpy(
            lines, num_threads=1
        ),
        "ours, lines in two threads": on_all_cores(
            lambda lines, _: codec.encode_batch_to_numpy(lines, num_threads=2)
        ),
        "ours, with offsets": lambda _, text: codec.encode_with_offsets(text),
        **(load_peers(options.peers) if options.peers else {}),
        "transformers": lambda _, text: theirs(text, verbose=False)["input_ids"],
    }
    limits = dict.fromkeys(SLOW, SLOW_BYTES) | {"transformers": REFERENCE_BYTES}

    def run(name: str) -> Callable[[], object]:
        parts = cycle(
            _beginning(lines, text, size, limits.get(name, size))
            for lines, text, size in zip(slices, texts, sizes, strict=True)
        )
        return lambda: encoders[name](*next(parts))

    seconds = interleaved({name: run(name) for name in encoders}, options.rounds)
    os.sched_setaffinity(0, cores)
    rates = {
        name: median(
            [
                min(size, limits.get(name, size)) / second / 1e6
                for size, second in zip(sizes[1:], times, strict=True)
            ]
        )
        for name, times in seconds.items()
    }
    peers = {n: r for n, r in rates.items() if "ours" not in n and n != "transformers"}
    ratios = {"ours / transformers": rates["ours"] / rates["transformers"]}
    if peers:
        fastest = max(peers, key=lambda name: peers[name])
        ratios[f"ours / {fastest}, the fastest peer"] = rates["ours"] / peers[fastest]
    ratios["two threads / one"] = rates["ours, bytes, two threads"] / rates["ours, bytes"]
    return rates | ratios


def _beginning(lines: list[str], text: str, size: int, limit: int) -> tuple[list[str], str]:
    """The lines and the text, cut in proportion so as to have about `limit` bytes."""
    share = min(1, limit / size)
    return lines[: int(len(lines) * share)], text[: int(len(text) * share)]


def prompts(ours: Any, theirs: Any, lines: list[str], rounds: int) -> dict[str, float]:
    """Microseconds a prompt; every prompt is another one."""
    texts = [line[:PROMPT] for line in lines if len(line) >= PROMPT][:3000]
    some = texts[:300]
    runs = {
        "Codec.encode": (texts, ours.codec.encode_to_numpy),
        "tokenizer(text)": (texts, ours),
        "transformers": (some, theirs),
    }
    return _microseconds(runs, rounds)


def _microseconds(
    runs: dict[str, tuple[list[Any], Callable[[Any], object]]], rounds: int
) -> dict[str, float]:
    """The time of a call, from calls with every item of a list."""

    def all_of(items: list[Any], function: Callable[[Any], object]) -> Callable[[], None]:
        def run() -> None:
            for item in items:
                function(item)

        return run

    seconds = interleaved({name: all_of(*run) for name, run in runs.items()}, rounds)
    return {name: median(times) / len(runs[name][0]) * 1e6 for name, times in seconds.items()}


def short_lines(ours: Any, theirs: Any, slices: list[list[str]]) -> dict[str, float]:
    """Seconds for 10,000 lines of 20 to 60 characters."""
    draw = random.Random(1)
    lines = [line[: draw.randint(20, 60)] for line in chain.from_iterable(slices)][:10_000]
    seconds = interleaved({"ours": lambda: ours(lines), "transformers": lambda: theirs(lines)}, 3)
    found = {name: median(times) for name, times in seconds.items()}
    return found | {"ratio": found["transformers"] / found["ours"]}


def decoding(ours: Any, theirs: Any, lines: list[str], rounds: int) -> dict[str, float]:
    """300 kB at once, in megabytes a second, and token by token, in microseconds a token."""
    text = "\n".join(lines)[:100_000]
    size = len(text.encode())
    array = ours.codec.encode_to_numpy(text)
    ids = array.tolist()

    def stream() -> None:
        decoder = ours.codec.stream_decoder()
        for token_id in ids:
            decoder.feed(token_id)

    def face_stream() -> None:
        decoder = ours.stream_decoder(skip_special_tokens=True)
        for token_id in ids:
            decoder.feed(token_id)

    one_by_one = ids[:10_000]
    seconds = interleaved(
        {
            "Codec.decode, MB/s": lambda: ours.codec.decode(array),
            "tokenizer.decode, MB/s": lambda: ours.decode(ids),
            "transformers' decode, MB/s": lambda: theirs.decode(ids),
            "Codec.stream_decoder, us": stream,
            "tokenizer.stream_decoder, us": face_stream,
            "transformers' decode of each, us": lambda: [theirs.decode([i]) for i in one_by_one],
        },
        rounds,
    )
    found = {name: median(times) for name, times in seconds.items()}
    counts = {"transformers' decode of each, us": len(one_by_one)}
    return {
        name: size / second / 1e6
        if name.endswith("MB/s")
        else second / counts.get(name, len(ids)) * 1e6
        for name, second in found.items()
    }


_CHILD = """
import sys, time
from gpt_neox_japanese.tokenizer.codec import Codec
start = time.perf_counter()
codec = Codec.load(sys.argv[1])
loaded = time.perf_counter()
codec.encode(sys.argv[2] * 2000)
print(loaded - start, time.perf_counter() - start)
"""


def loading(reference: Path, rounds: int) -> dict[str, float]:
    """Seconds from the start of loading, in new processes, imports of the codec not counted."""
    with tempfile.TemporaryDirectory() as directory:
        first = _child(reference, directory)
        warm = [_child(reference, directory) for _ in range(rounds)]
    seconds = interleaved(
        {
            "tokenizer.from_pretrained": lambda: GPTNeoXJapaneseTokenizer.from_pretrained(
                reference
            ),
            "transformers' from_pretrained": lambda: InTreeTokenizer.from_pretrained(reference),
        },
        rounds,
    )
    return {
        "Codec.load": median([load for load, _ in warm]),
        "Codec.load and the first 32,000 characters": median([both for _, both in warm]),
        "the same, nothing compiled yet": first[1],
        **{name: median(times) for name, times in seconds.items()},
    }


def _child(reference: Path, cache: str) -> tuple[float, float]:
    """Seconds until loaded, and until 32,000 characters are encoded."""
    output = subprocess.run(
        [sys.executable, "-c", _CHILD, str(reference), "吾輩は猫である。名前はまだ無い。"],
        env={**os.environ, "NUMBA_CACHE_DIR": cache},
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    load, both = map(float, output.split())
    return load, both


def hostile(reference: Path, characters: int = 30_000) -> dict[str, Any]:
    """time(10 n) / time(n), medians of 5, of every hostile text with all options."""
    ratios: dict[str, float] = {}
    for legacy, clean in product((True, False), repeat=2):
        codec = Codec(Codec.load(reference).vocabulary, legacy=legacy, clean=clean)
        codec.encode(WARM_UP)
        for (name, unit), allow_tags in product(HOSTILE.items(), (True, False)):
            text = unit * (characters // len(unit))
            found = [_seconds(codec, text * times, allow_tags) for times in (1, 10)]
            key = f"{name}, {legacy=}, {clean=}, {allow_tags=}"
            ratios[key] = found[1] / found[0]
    worst = max(ratios, key=lambda key: ratios[key])
    return {
        "characters": [characters, 10 * characters],
        "families": len(HOSTILE),
        "combinations": len(ratios),
        "median": median(list(ratios.values())),
        "worst": ratios[worst],
        "worst_is": worst,
    }


def _seconds(codec: Codec, text: str, allow_tags: bool) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        codec.encode_with_offsets(text, allowed_special="all" if allow_tags else set())
        times.append(time.perf_counter() - start)
    return median(times)


if __name__ == "__main__":
    main()
