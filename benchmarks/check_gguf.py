"""GGUF files in llama.cpp itself: `python benchmarks/check_gguf.py CORPUS VOCABULARY`.

Counts how many lines of CORPUS have our ids in llama.cpp, with the default vocabulary and with
VOCABULARY (the published one), and how many of 20 prompts it continues greedily with our ids, for
some types of numbers. Needs `pip install 'gpt-neox-japanese[gguf]' xllamacpp`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from harness import write_result

from gpt_neox_japanese import TextGenerator
from gpt_neox_japanese.interop.gguf_writer import write_gguf
from gpt_neox_japanese.tokenizer.codec import Codec

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.float_model import float_model
from tests.interop import samples
from tests.interop.llama_server import LlamaServer, llama_server

TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_k")
LINES = 2000
TOKENS = 48


def main() -> None:
    """Run everything, and write `results/gguf.json`."""
    corpus, vocabulary = map(Path, sys.argv[1:])
    lines = [*samples.corpus_lines(corpus, LINES), *samples.HOSTILE]
    with TextGenerator.from_pretrained(float_model(), threads=1) as generator:
        written = generator.generate_details(
            list(samples.PROMPTS), max_new_tokens=TOKENS, temperature=0, repetition_penalty=1.0
        )
    ours = [list(one.token_ids) for [one] in written]
    types = {}
    with TemporaryDirectory() as directory:
        for kind in TYPES:
            file = Path(directory, f"{kind}.gguf")
            size = write_gguf(float_model(), file, kind=kind)
            with llama_server(file) as server:
                types[kind] = {
                    "bytes": size,
                    "lines_with_our_ids": equal_lines(server, samples.default_codec(), lines),
                    "prompts_with_our_greedy_ids": equal_prompts(server, ours),
                }
        codec = Codec.load(vocabulary)
        model = samples.small_model(Path(directory, "small"), codec)
        write_gguf(model, Path(directory, "small.gguf"))
        with llama_server(Path(directory, "small.gguf")) as server:
            published = equal_lines(server, codec, lines)
    write_result(
        "gguf",
        ["gguf", "xllamacpp", "numba", "numpy"],
        lines=len(lines),
        prompts=len(samples.PROMPTS),
        max_new_tokens=TOKENS,
        default_model=types,
        published_vocabulary={
            "extra_ids": len(samples.gguf_tokens(codec).extra),
            "lines_with_our_ids": published,
        },
        default_vocabulary={"extra_ids": len(samples.gguf_tokens(samples.default_codec()).extra)},
    )


def equal_lines(server: LlamaServer, codec: Codec, lines: list[str]) -> int:
    """How many lines have the ids of a codec."""
    tokens = samples.gguf_tokens(codec)
    return sum(samples.canonical(tokens, server.tokenize(x)) == codec.encode(x) for x in lines)


def equal_prompts(server: LlamaServer, ours: list[list[int]]) -> int:
    """How many prompts are continued with our ids; llama.cpp may leave out the one that ends."""
    theirs = [server.greedy(prompt, TOKENS)[0] for prompt in samples.PROMPTS]
    return sum(a in (b, b[:-1]) for a, b in zip(theirs, ours, strict=True))


if __name__ == "__main__":
    main()
