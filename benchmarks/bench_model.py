"""The model beside the one in transformers: forward, decode, training step, loading; a GPU alone.

    python benchmarks/bench_model.py [forward] [decode] [train] [load] [gpu]
        [--rounds 5] [--dropout 0.0] [--layers 32] [--small]

Both models have the same random weights and take turns. All parts together need 16 GB of memory
and, for `load`, 6 GB of disk; `gpu` is left out where there is none. `--small` replaces every shape
by a tiny one, to see that the program runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import interleaved, median, write_result
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, StaticCache
from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseConfig as InTreeConfig
from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseForCausalLM as InTreeModel

from gpt_neox_japanese import GPTNeoXJapaneseConfig, GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.model.decode.cache_names import cache_kwargs
from gpt_neox_japanese.model.decode.linear import half_is_slow
from gpt_neox_japanese.training.machine.cpu_attention import NAME as PLAIN_PRODUCTS

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "vocab_size": 512,
    "num_hidden_layers": 2,
}
TRAINED: dict[str, Any] = {
    "hidden_size": 320,
    "num_attention_heads": 5,
    "vocab_size": 8000,
    "num_hidden_layers": 6,
}
DECODED = 8  # tokens of one timed run
Result = dict[str, Any]


def main() -> None:
    """Measure the parts that are asked for, print and write their results."""
    parts = {"forward": forward, "decode": decode, "train": train, "load": load, "gpu": gpu}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dropout", type=float, default=0.0, help="of attention, on both sides")
    parser.add_argument("--layers", type=int, default=32, help="of the 2.7B shape in decode, load")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measured_alone(json.loads(arguments.measure), arguments)))
        return
    for name in arguments.parts or parts:
        result = parts[name](arguments)
        if result:
            print(json.dumps({name: result}, indent=2))
            suffix = "-small" if arguments.small else ""
            print(write_result(f"model-{name}{suffix}", ["torch", "transformers"], **result))


# ---- CPU: forward and decode ---------------------------------------------------------------------


def forward(arguments: argparse.Namespace) -> Result:
    """Milliseconds of a pass over 512 tokens through 8 layers of the 2.7B width."""
    ids = torch.randint(10, 500, (1, 512))
    result = {}
    for dtype in (torch.float32, torch.bfloat16):
        models = both(arguments, dtype, num_hidden_layers=8)
        runs = {n: partial(inference, m, ids, use_cache=False) for n, m in models.items()}
        result[str(dtype).removeprefix("torch.")] = compared(runs, arguments.rounds, 1)
    return result


def decode(arguments: argparse.Namespace) -> Result:
    """Milliseconds of a token of the 2.7B shape in bfloat16, with caches of several sizes."""
    models = both(arguments, torch.bfloat16, num_hidden_layers=arguments.layers)
    result = {}
    for batch, past in ((1, 16), (1, 1024), (8, 1024)):
        runs = {}
        for name, model in models.items():  # a cache each: ours makes room in the one it is given
            cache = filled_cache(model.config, batch, past)
            runs[name] = partial(decoded, model, cache, batch)
        result[f"batch {batch}, past {past}"] = compared(runs, arguments.rounds, DECODED)
    weights = [m.weight for m in models["ours"].modules() if isinstance(m, nn.Linear)]
    products = interleaved({"products": partial(bare_products, weights)}, arguments.rounds)
    result["matrix products alone"] = {"ms": 1000 * median(products["products"])}
    return result


def both(arguments: argparse.Namespace, dtype: torch.dtype, **changes: Any) -> dict[str, nn.Module]:
    """Our model and theirs with one set of weights in memory."""
    shape = changes | (SMALL if arguments.small else {})
    ours = random_model(GPTNeoXJapaneseForCausalLM, GPTNeoXJapaneseConfig(**shape), dtype)
    with torch.device("meta"):
        theirs = InTreeModel(InTreeConfig(**shape))
    theirs.load_state_dict(ours.state_dict(), assign=True)
    # Its tables are no part of a state dict; float32 is its best setting.
    theirs.gpt_neox_japanese.rotary_emb = type(theirs.gpt_neox_japanese.rotary_emb)(theirs.config)
    return {"ours": ours, "theirs": theirs.eval()}


def random_model(model_class: Any, config: Any, dtype: torch.dtype, device: str = "cpu") -> Any:
    """A model with random weights, made without a float32 copy of them."""
    with torch.device("meta"):
        model = model_class(config).to(dtype)
    model.to_empty(device=device)
    model.tie_weights()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("layernorm.weight", "layer_norm.weight")):
                parameter.fill_(1)
            else:
                parameter.normal_(0, 0.02)
    return model.eval()


@torch.inference_mode()
def inference(model: nn.Module, ids: Tensor, **options: Any) -> Tensor:
    """The logits."""
    logits: Tensor = model(ids, **options).logits
    return logits


def filled_cache(config: Any, batch: int, past: int) -> DynamicCache:
    """A cache of random keys and values: a real one of this length would take minutes."""
    size = config.hidden_size // config.num_attention_heads
    cache = DynamicCache()
    for layer in range(config.num_hidden_layers):
        keys = torch.randn(batch, config.num_attention_heads, past, size, dtype=torch.bfloat16)
        cache.update(keys, keys.clone(), layer)
    return cache


@torch.inference_mode()
def decoded(model: nn.Module, cache: DynamicCache, batch: int) -> None:
    """Decode some tokens; leave the cache as it was."""
    ids = torch.full((batch, 1), 20)
    for _ in range(DECODED):
        logits = model(ids, use_cache=True, **cache_kwargs(cache)).logits
        ids = logits[:, -1:].argmax(-1)
    cache.crop(-DECODED)


@torch.inference_mode()
def bare_products(weights: list[Tensor]) -> None:
    """The matrix products of one token, and nothing else."""
    inputs = {w.shape[1]: torch.ones(1, w.shape[1], dtype=w.dtype) for w in weights}
    for weight in weights:
        nn.functional.linear(inputs[weight.shape[1]], weight)


def compared(runs: Mapping[str, Callable[[], object]], rounds: int, parts: int) -> Result:
    """Milliseconds of a part of each run, and how many times faster ours is."""
    seconds = {name: median(times) for name, times in interleaved(runs, rounds).items()}
    result: Result = {f"{name} ms": 1000 * value / parts for name, value in seconds.items()}
    return result | {"times faster": seconds["theirs"] / seconds["ours"]}


# ---- CPU: training -------------------------------------------------------------------------------


def train(arguments: argparse.Namespace) -> Result:
    """Tokens a second and peak memory of a training step, in bfloat16 autocast where it is fast."""
    every = trainers()
    steps = {name: training_step(arguments, **options) for name, options in every.items()}
    tokens = next(iter(steps.values()))().numel()
    seconds = {n: median(times) for n, times in interleaved(steps, arguments.rounds).items()}
    del steps
    result: Result = {}
    for name, options in every.items():
        alone = in_process_of_its_own(arguments, {"train": options})
        result[name] = {"tokens per second": tokens / seconds[name], "peak MB": alone["peak MB"]}
    for kind in ("", ", compiled"):
        of_kind = {n: s for n, s in seconds.items() if ("compiled" in n) == bool(kind)}
        ours = min(s for n, s in of_kind.items() if n.startswith("ours"))
        theirs = {n: s for n, s in of_kind.items() if n.startswith("theirs")}
        result[f"times faster{kind}"] = {name: value / ours for name, value in theirs.items()}
    return result


def trainers() -> dict[str, Result]:
    """Every way to train that is measured: arguments of `training_step`."""
    ours: Result = {"ours": True, "attention": "sdpa"}
    theirs: Result = {"ours": False, "attention": "eager"}
    # The best setting of both without units for bfloat16, and at times of theirs with them.
    float32 = {"dtype": "float32"}
    eager = {"theirs, float32": theirs | float32}
    if half_is_slow(torch.empty(0), torch.bfloat16):
        eager["ours, float32"] = ours | float32
    else:
        eager["ours, sdpa"] = ours
        eager["ours, plain products"] = ours | {"attention": PLAIN_PRODUCTS}
        eager["theirs"] = theirs
    return eager | {f"{n}, compiled": o | {"compiled": True} for n, o in eager.items()}


def training_step(
    arguments: argparse.Namespace,
    *,
    ours: bool,
    attention: str,
    compiled: bool = False,
    dtype: str = "bfloat16",
) -> Callable[[], Tensor]:
    """A function that makes one step and returns its ids, [8, 512]."""
    shape = SMALL if arguments.small else TRAINED
    shape = {**shape, "attention_dropout": arguments.dropout, "use_cache": False}
    model: Any
    if ours:
        model = GPTNeoXJapaneseForCausalLM(GPTNeoXJapaneseConfig(**shape))
        model.skip_logits_in_training = True
        model.set_attn_implementation(attention)
    else:
        model = InTreeModel(InTreeConfig(**shape))
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-4, fused=True)
    called = torch.compile(model) if compiled else model
    ids = torch.randint(10, 500, (2, 64) if arguments.small else (8, 512))

    def step() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = called(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return ids

    return step


# ---- CPU: loading, and whatever needs a process of its own ---------------------------------------


def load(arguments: argparse.Namespace) -> Result:
    """Seconds and peak memory of loading a checkpoint of the 2.7B shape from a warm disk."""
    with tempfile.TemporaryDirectory() as directory:
        shape = {"num_hidden_layers": arguments.layers} | (SMALL if arguments.small else {})
        config = GPTNeoXJapaneseConfig(**shape)
        model = random_model(GPTNeoXJapaneseForCausalLM, config, torch.bfloat16)
        model.save_pretrained(directory, max_shard_size="100GB")
        del model
        runs: dict[str, list[Result]] = {"ours": [], "theirs": []}
        for _ in range(arguments.rounds):
            for name, rounds in runs.items():
                options = {"load": {"ours": name == "ours", "directory": directory}}
                rounds.append(in_process_of_its_own(arguments, options))
        size = Path(directory, "model.safetensors").stat().st_size
    result: Result = {
        name: {key: median([each[key] for each in rounds]) for key in rounds[0]}
        for name, rounds in runs.items()
    }
    return result | {"file MB": size / 1e6}


def in_process_of_its_own(arguments: argparse.Namespace, what: Result) -> Result:
    """What `measured_alone` returns in a fresh process."""
    command = [sys.executable, __file__, "--measure", json.dumps(what)]
    command += ["--dropout", str(arguments.dropout), *["--small"] * arguments.small]
    # Freed memory goes back at once, so that the peak is the peak of what is in use.
    output = subprocess.run(
        ["env", "MALLOC_MMAP_THRESHOLD_=65536", *command], stdout=subprocess.PIPE, check=True
    )
    result: Result = json.loads(output.stdout.splitlines()[-1])
    return result


def measured_alone(what: Result, arguments: argparse.Namespace) -> Result:
    """Peak memory, over what the libraries take, of a training step or of loading."""
    import time

    def peak() -> float:
        # Not `ru_maxrss`: it begins with the peak of the process that started this one.
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1e3

    before = peak()
    start = time.perf_counter()
    if "train" in what:
        step = training_step(arguments, **what["train"])
        step()
        step()
        return {"peak MB": peak() - before}
    model_class: Any = GPTNeoXJapaneseForCausalLM if what["load"]["ours"] else InTreeModel
    model = model_class.from_pretrained(what["load"]["directory"], dtype=torch.bfloat16)
    for parameter in model.parameters():  # a file that is only mapped is not yet loaded
        parameter.view(-1)[:: 4096 // parameter.element_size()].sum()
    return {"seconds": time.perf_counter() - start, "peak MB": peak() - before}


# ---- GPU -----------------------------------------------------------------------------------------


def gpu(arguments: argparse.Namespace) -> Result:
    """Prefill and decode of the 2.7B shape in bfloat16, and their share of the ceilings."""
    if not torch.cuda.is_available():
        return {}
    config = GPTNeoXJapaneseConfig(**(SMALL if arguments.small else {}))
    model = random_model(GPTNeoXJapaneseForCausalLM, config, torch.bfloat16, "cuda")
    linears = [m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear)]
    bandwidth, arithmetic = gpu_ceilings()
    tokens = 2048 - DECODED
    ids = torch.randint(10, 500, (1, tokens), device="cuda")
    result: Result = {
        "device": torch.cuda.get_device_name(),
        "ceiling GB/s": bandwidth / 1e9,
        "ceiling TFLOP/s": arithmetic / 1e12,
    }
    for name, called in {
        "sdpa": model,
        "compiled": torch.compile(model, mode="max-autotune-no-cudagraphs"),
    }.items():
        prefill = partial(inference, called, ids, use_cache=False, logits_to_keep=1)
        write = partial(gpu_decoded, called, config, ids[:, :1])
        runs = {"prefill": partial(finished, prefill), "decode": partial(finished, write)}
        seconds = {n: median(times) for n, times in interleaved(runs, arguments.rounds).items()}
        prefilled, token = seconds["prefill"], seconds["decode"] / DECODED
        result[name] = {
            "prefill tokens/s": tokens / prefilled,
            "prefill % of arithmetic": 200
            * sum(linears)
            * tokens
            / seconds["prefill"]
            / arithmetic,
            "decode ms": 1000 * token,
            "decode % of bandwidth": 200 * sum(linears) / token / bandwidth,
        }
    return result


@torch.inference_mode()
def gpu_decoded(called: Any, config: Any, ids: Tensor) -> None:
    """Decode some tokens into a static cache."""
    cache = StaticCache(config=config, max_cache_len=1024)
    for _ in range(DECODED):
        logits = called(ids, use_cache=True, **cache_kwargs(cache)).logits
        ids = logits[:, -1:].argmax(-1)


def finished(run: Callable[[], object]) -> None:
    """Run and wait for the device."""
    run()
    torch.cuda.synchronize()


def gpu_ceilings() -> tuple[float, float]:
    """Bytes a second of a large copy, and operations a second of a large bfloat16 product."""
    large = torch.randn(2**30, device="cuda", dtype=torch.bfloat16)
    square = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    runs = {
        "copy": partial(finished, partial(torch.clone, large)),
        "product": partial(finished, partial(torch.mm, square, square)),
    }
    seconds = {name: median(times) for name, times in interleaved(runs, 7).items()}
    return 2 * large.numel() * 2 / seconds["copy"], 2 * 8192**3 / seconds["product"]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
