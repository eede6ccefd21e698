"""Other engines beside ours: `python benchmarks/check_engines.py CORPUS [ENGINE...]`.

Each engine continues 20 prompts greedily with the default model, in float32 and quantised; ids, the
streamed text and log-probabilities are compared with ours, and the ids of lines of CORPUS where it
takes text. Writes `results/engine-NAME.json`, of which `engines_table.py` makes the table of the
documentation. Needs `pip install ctranslate2 onnxruntime onnxscript xllamacpp`.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from harness import write_result

from gpt_neox_japanese import GPTNeoXJapaneseTokenizer, TextGenerator
from gpt_neox_japanese.tokenizer.codec import Codec

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.float_model import float_model
from tests.interop import samples

TOKENS = 48
LINES = 1000
MODEL = float_model()
CODEC = Codec.from_pretrained(MODEL)
PROMPTS = [CODEC.encode(prompt) for prompt in samples.PROMPTS]


@dataclass(frozen=True)
class Written:
    """What an engine wrote after each prompt: ids, and the log-probability of each where told."""

    ids: list[list[int]]
    logprobs: list[list[float]]


def main() -> None:
    """Try the engines that are named, or all."""
    corpus, names = Path(sys.argv[1]), sys.argv[2:] or list(ENGINES)
    lines = samples.corpus_lines(corpus, LINES)
    ours = written_by_us()
    for name in names:
        packages, check = ENGINES[name]
        result = check(ours, lines)
        write_result(
            f"engine-{name}",
            [*packages, "numba", "numpy"],
            engine=packages[0],
            prompts=len(PROMPTS),
            lines=len(lines),
            max_new_tokens=TOKENS,
            **result,
        )
        print(name, json.dumps(result))


def written_by_us() -> Written:
    """The reference: this package's engine in float32."""
    with TextGenerator.from_pretrained(threads=1) as generator:
        written = generator.generate_details(
            list(samples.PROMPTS),
            max_new_tokens=TOKENS,
            temperature=0,
            repetition_penalty=1.0,
            logprobs=0,
        )
    return Written(
        [list(one.token_ids) for [one] in written],
        [list(one.logprobs or ()) for [one] in written],
    )


def equal_prompts(ours: Written, theirs: Sequence[Sequence[int]]) -> int:
    """How many prompts have our ids; an engine may leave out the one that ends a text."""
    return sum(list(b) in (a, a[:-1]) for a, b in zip(ours.ids, theirs, strict=True))


def logprob_difference(ours: Written, theirs: Written) -> float:
    """The largest difference where the ids are equal."""
    pairs = zip(ours.ids, theirs.ids, ours.logprobs, theirs.logprobs, strict=True)
    return max(
        float(np.abs(np.subtract(a[: len(b)], b[: len(a)])).max())
        for ids, other, a, b in pairs
        if ids[: len(other)] == other
    )


# ---- transformers --------------------------------------------------------------------------------


def check_transformers(model_class: Any, tokenizer_class: Any) -> dict[str, Any]:
    """Either package's classes, in transformers' own loop."""
    import torch

    torch.set_num_threads(1)
    tokenizer = tokenizer_class.from_pretrained(MODEL)
    model = model_class.from_pretrained(MODEL, dtype=torch.float32).eval()
    ids, logprobs = [], []
    for prompt in PROMPTS:
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            repetition_penalty=1.0,
            max_new_tokens=TOKENS,
            output_logits=True,
            return_dict_in_generate=True,
        )
        row = out.sequences[0, len(prompt) :].tolist()
        scores = torch.cat(out.logits).log_softmax(-1)
        ids.append(row)
        logprobs.append(scores[torch.arange(len(row)), row].tolist())
    return {"written": Written(ids, logprobs), "tokenizer": tokenizer, "model": model}


def streams_whole_text(tokenizer: Any, model: Any) -> bool:
    """Whether a streamed text is the text of its ids, spaces and line breaks included."""
    import torch
    from transformers import TextStreamer

    class Kept(TextStreamer):
        text = ""

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            self.text += text

    ids = torch.tensor([PROMPTS[0]])
    streamer = Kept(tokenizer, skip_prompt=True, skip_special_tokens=True)
    greedy = {"do_sample": False, "repetition_penalty": 1.0, "max_new_tokens": TOKENS}
    row = model.generate(ids, streamer=streamer, **greedy)[0, ids.shape[1] :].tolist()
    return streamer.text == CODEC.decode([i for i in row if i != CODEC.eot_token])


def transformers_ours(ours: Written, lines: list[str]) -> dict[str, Any]:
    """Our classes."""
    from gpt_neox_japanese import GPTNeoXJapaneseForCausalLM
    from gpt_neox_japanese.files.tensor_files import read_tensors
    from gpt_neox_japanese.quantization.convert import convert

    found = check_transformers(GPTNeoXJapaneseForCausalLM, GPTNeoXJapaneseTokenizer)
    quantised = {}
    with TemporaryDirectory() as folder:
        for bits in (8, 4):
            convert(MODEL, Path(folder, str(bits)), bits, read=read_tensors)
            import torch

            model = GPTNeoXJapaneseForCausalLM.from_pretrained(Path(folder, str(bits)))
            greedy = {"do_sample": False, "repetition_penalty": 1.0, "max_new_tokens": TOKENS}
            rows = [model.generate(torch.tensor([p]), **greedy)[0, len(p) :] for p in PROMPTS]
            quantised[f"int{bits}"] = equal_prompts(ours, [row.tolist() for row in rows])
    return of_transformers(ours, lines, found) | {"quantised": quantised}


def transformers_alone(ours: Written, lines: list[str]) -> dict[str, Any]:
    """The classes of transformers, of which no half precision or quantised form is tried."""
    from transformers.models.gpt_neox_japanese.modeling_gpt_neox_japanese import (
        GPTNeoXJapaneseForCausalLM,
    )
    from transformers.models.gpt_neox_japanese.tokenization_gpt_neox_japanese import (
        GPTNeoXJapaneseTokenizer,
    )

    found = check_transformers(GPTNeoXJapaneseForCausalLM, GPTNeoXJapaneseTokenizer)
    return of_transformers(ours, lines, found)


def of_transformers(ours: Written, lines: list[str], found: dict[str, Any]) -> dict[str, Any]:
    """What is told of either."""
    tokenizer = found["tokenizer"]
    return {
        "prompts_with_our_greedy_ids": equal_prompts(ours, found["written"].ids),
        "lines_with_our_ids": sum(tokenizer(x)["input_ids"] == CODEC.encode(x) for x in lines),
        "streams": streams_whole_text(tokenizer, found["model"]),
        "logprob_difference": logprob_difference(ours, found["written"]),
    }


# ---- CTranslate2 ---------------------------------------------------------------------------------


def ctranslate2(ours: Written, _: list[str]) -> dict[str, Any]:
    """It takes and gives tokens."""
    import ctranslate2 as package
    from ctranslate2.converters.transformers import TransformersConverter

    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(MODEL)
    names = [tokenizer.convert_ids_to_tokens(prompt) for prompt in PROMPTS]
    with TemporaryDirectory() as folder, recipe("ctranslate2_model"):
        written = {}
        for kind in ("float32", "int8"):
            output = TransformersConverter(str(MODEL)).convert(
                f"{folder}/{kind}", quantization=kind
            )
            engine = package.Generator(output, intra_threads=1, compute_type=kind)
            steps = [
                list(
                    engine.generate_tokens(
                        prompt,
                        max_length=TOKENS,
                        sampling_topk=1,
                        end_token=[tokenizer.eos_token],
                        return_log_prob=True,
                    )
                )
                for prompt in names
            ]
            written[kind] = Written(
                [[step.token_id for step in row] for row in steps],
                [[step.log_prob for step in row] for row in steps],
            )
    return {
        "prompts_with_our_greedy_ids": equal_prompts(ours, written["float32"].ids),
        "streams": "tokens",
        "logprob_difference": logprob_difference(ours, written["float32"]),
        "quantised": {"int8": equal_prompts(ours, written["int8"].ids)},
    }


# ---- ONNX Runtime --------------------------------------------------------------------------------


def onnx(ours: Written, _: list[str]) -> dict[str, Any]:
    """It gives logits, and has no loop of its own."""
    import onnxruntime
    from onnxruntime.quantization import quantize_dynamic

    with TemporaryDirectory() as folder, recipe("onnx_model") as example:
        example["program"].save(Path(folder, "float32.onnx"))
        quantize_dynamic(Path(folder, "float32.onnx"), Path(folder, "int8.onnx"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        written = {
            kind: greedy_of(onnxruntime.InferenceSession(Path(folder, f"{kind}.onnx"), options))
            for kind in ("float32", "int8")
        }
    return {
        "prompts_with_our_greedy_ids": equal_prompts(ours, written["float32"].ids),
        "streams": "logits",
        "logprob_difference": logprob_difference(ours, written["float32"]),
        "quantised": {"int8": equal_prompts(ours, written["int8"].ids)},
    }


def greedy_of(session: Any) -> Written:
    """The most likely ids, each computed from all before it."""
    ids, logprobs = [], []
    for prompt in PROMPTS:
        row, scores = list(prompt), []
        while len(row) < len(prompt) + TOKENS:
            [logits] = session.run(None, {"input_ids": np.array([row], np.int64)})
            last = logits[0, -1].astype(np.float64)
            row.append(int(last.argmax()))
            scores.append(float(last.max() - last.max() - np.log(np.exp(last - last.max()).sum())))
            if row[-1] == CODEC.eot_token:
                break
        ids.append(row[len(prompt) :])
        logprobs.append(scores)
    return Written(ids, logprobs)


@contextmanager
def recipe(name: str) -> Iterator[dict[str, Any]]:
    """What an example defines when it is run."""
    import runpy

    yield runpy.run_path(str(Path(__file__).parents[1] / "examples" / f"{name}.py"))


# ---- llama.cpp -----------------------------------------------------------------------------------


def llama_cpp(ours: Written, _: list[str]) -> dict[str, Any]:
    """Streaming and log-probabilities; `check_gguf.py` counts ids."""
    from gpt_neox_japanese.interop.gguf_writer import write_gguf
    from tests.interop.llama_server import llama_server

    with TemporaryDirectory() as folder:
        file = Path(folder, "f32.gguf")
        write_gguf(MODEL, file, kind="f32")
        with llama_server(file) as server:
            body = {
                "n_predict": TOKENS,
                "samplers": ["top_k"],
                "top_k": 1,
                "repeat_penalty": 1.0,
                "cache_prompt": False,
            }
            streamed, ids, logprobs = [], [], []
            for prompt in samples.PROMPTS:
                streamed.append("".join(events(server, {**body, "prompt": prompt})))
                asked = {**body, "prompt": prompt, "n_probs": 1, "return_tokens": True}
                told = server._post("/completion", asked)
                ids.append(told["tokens"])
                rows = told["completion_probabilities"]
                logprobs.append([row["logprob"] for row in rows][: len(told["tokens"])])
    texts = [CODEC.decode([i for i in row if i != CODEC.eot_token]) for row in ours.ids]
    return {
        "prompts_with_our_greedy_ids": equal_prompts(ours, ids),
        "streams": streamed == texts,
        "logprob_difference": logprob_difference(ours, Written(ids, logprobs)),
    }


def events(server: Any, body: dict[str, Any]) -> Iterator[str]:
    """The pieces of a streamed text."""
    request = urllib.request.Request(
        f"{server._address}/completion",
        json.dumps({**body, "stream": True}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        for line in answer:
            if line.startswith(b"data: {"):
                yield json.loads(line.removeprefix(b"data: "))["content"]


Check = Callable[[Written, list[str]], dict[str, Any]]
ENGINES: dict[str, tuple[list[str], Check]] = {
    "transformers": (["transformers", "torch"], transformers_ours),
    "transformers-alone": (["transformers", "torch"], transformers_alone),
    "ctranslate2": (["ctranslate2"], ctranslate2),
    "onnx": (["onnxruntime", "onnxscript", "torch"], onnx),
    "llama_cpp": (["xllamacpp", "gguf"], llama_cpp),
}


if __name__ == "__main__":
    main()
