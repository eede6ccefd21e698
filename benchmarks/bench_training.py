"""Training: ours beside the model in transformers, what a step costs besides, and `prepare`.

    python benchmarks/bench_training.py CORPUS [--steps 4] [--rounds 3] [--dtypes fp32 bf16]

Both models have 10 M parameters, the same weights, no dropout and the same windows. transformers'
is trained by `Trainer` as it is; ours by `neox-ja train`'s Trainer, which also checks every loss
and keeps freed memory. The optimizer is AdamW for both: Muon would be ours alone. Each round is a
process of its own for each model, in turn.

On a processor without units for bfloat16 (AVX512_BF16 or AMX), bf16 is emulated and slower than
fp32 by far for both, and is measured on single windows; `bf16_units` in the result says so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import interleaved, median, write_result

from gpt_neox_japanese import Codec, default_model_directory
from gpt_neox_japanese.corpus import Layout, read_documents
from gpt_neox_japanese.training.data.prepare import prepare

VOCABULARY, WINDOW, BATCH = 8000, 512, 8
SHAPE: dict[str, Any] = {"hidden_size": 320, "num_hidden_layers": 6, "num_attention_heads": 5}


def main() -> None:
    """Measure, print a table, write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, help="a corpus file, or a directory of them")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", nargs="+", default=["fp32"], choices=["fp32", "bf16"])
    parser.add_argument("--megabytes", type=int, default=240, help="of text, for prepare")
    parser.add_argument("--one", nargs=2, help="measure one model and print it (internal)")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one_run(arguments.one[0], arguments.one[1], arguments.steps)))
        return
    result: dict[str, object] = {
        "bf16_units": bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
        "training": {
            dtype: compare(dtype, arguments.steps, arguments.rounds) for dtype in arguments.dtypes
        },
        "prepare": compare_prepare(arguments.corpus, arguments.megabytes, arguments.rounds),
    }
    print(json.dumps(result, indent=2))
    print(write_result("training", ["torch", "transformers", "accelerate", "numba"], **result))


def compare(dtype: str, steps: int, rounds: int) -> dict[str, object]:
    """Tokens per second of both, and the share of our step that is neither pass nor update."""
    runs: dict[str, list[dict[str, float]]] = {"transformers": [], "ours": []}
    for _ in range(rounds):
        for name, found in runs.items():
            command = [sys.executable, "-W", "ignore", __file__, "-", "--steps", str(steps)]
            output = subprocess.run(
                [*command, "--one", name, dtype], check=True, capture_output=True, text=True
            ).stdout
            found.append(json.loads(output.splitlines()[-1]))
    speed = {name: median([one["tokens_per_second"] for one in of]) for name, of in runs.items()}
    return {
        "tokens_per_second": speed,
        "ratio": speed["ours"] / speed["transformers"],
        "share_outside": median([one["share_outside"] for one in runs["ours"]]),
    }


def one_run(name: str, dtype: str, steps: int) -> dict[str, float]:
    """Train for some steps, of which the first is not counted."""
    warnings.simplefilter("ignore")
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseConfig as TheirConfig
    from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseForCausalLM as TheirModel

    from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
    from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
    from gpt_neox_japanese.training.data.dataset import TrainingWindows
    from gpt_neox_japanese.training.data.shards import ShardedTokens
    from gpt_neox_japanese.training.machine import cpu_attention
    from gpt_neox_japanese.training.machine.malloc import keep_freed_memory
    from gpt_neox_japanese.training.trainer import RunTrainer

    torch.manual_seed(0)
    batch = 1 if dtype == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported() else BATCH
    shape: dict[str, Any] = {
        **SHAPE,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": WINDOW,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    ours = name == "ours"
    model: Any
    if ours:
        model = GPTNeoXJapaneseForCausalLM(GPTNeoXJapaneseConfig(**shape))
        model.skip_logits_in_training = True
        if dtype == "bf16":
            model.set_attn_implementation(cpu_attention.NAME)
        keep_freed_memory()
    else:
        model = TheirModel(TheirConfig(**shape))
    ids = np.random.default_rng(0).integers(3, VOCABULARY, 2**18).astype(np.uint16)
    windows = TrainingWindows(ShardedTokens([ids]), WINDOW, (steps + 1) * batch, 0)
    watch = Stopwatch()

    class Clock(TrainerCallback):
        """Starts counting when the first step is over."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 1:
                watch.start()
            elif state.global_step == state.max_steps:
                watch.stop()

    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=batch,
        max_steps=steps + 1,
        learning_rate=1e-3,
        bf16=dtype == "bf16",
        use_cpu=True,
        remove_unused_columns=ours is False,
        train_sampling_strategy="sequential",
        dataloader_pin_memory=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=steps + 1,
    )
    options: dict[str, Any] = (
        {"use_muon": False, "identity": {}, "export": lambda _: None} if ours else {}
    )
    trainer = (RunTrainer if ours else Trainer)(
        **options, model=model, args=arguments, train_dataset=windows, callbacks=[Clock()]
    )
    watch.count(trainer, "compute_loss")
    watch.count(trainer.accelerator, "backward")
    watch.count(trainer.create_optimizer(), "step")
    trainer.train()
    return {
        "tokens_per_second": steps * batch * WINDOW / watch.seconds,
        "share_outside": 1 - watch.inside / watch.seconds,
    }


class Stopwatch:
    """Seconds of everything, and those spent inside counted methods."""

    def __init__(self) -> None:
        self.seconds = self.inside = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """Begin to count."""
        self._since, self.inside = time.perf_counter(), 0.0

    def stop(self) -> None:
        """Have counted."""
        assert self._since is not None
        self.seconds = time.perf_counter() - self._since

    def count(self, owner: object, name: str) -> None:
        """Count the time spent in a method."""
        method = getattr(owner, name)

        def counted(*args: object, **kwargs: object) -> object:
            start = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self.inside += time.perf_counter() - start

        setattr(owner, name, counted)


def compare_prepare(corpus: Path, megabytes: int, rounds: int) -> dict[str, float]:
    """Megabytes per second of `prepare`, and of encoding the same texts that lie in memory."""
    texts: list[str] = []
    size = 0
    for document in read_documents([corpus]):
        texts.append(document.text)
        size += len(document.text.encode())
        if size >= megabytes * 10**6:
            break
    codec = Codec.load(default_model_directory())
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        lines = (
            json.dumps({"id": str(number), "text": text}, ensure_ascii=False) + "\n"
            for number, text in enumerate(texts)
        )
        (directory / "works.jsonl").write_text("".join(lines), encoding="utf-8")
        numbers = iter(range(100))

        def prepared() -> None:
            output = directory / f"data{next(numbers)}"
            prepare(
                [directory / "works.jsonl"],
                default_model_directory(),
                output,
                layout=Layout(),
                workers=1,
            )

        seconds = interleaved(
            {
                "prepare": prepared,
                "tokenizing": lambda: codec.encode_batch_to_numpy(texts, num_threads=1),
            },
            rounds,
        )
    speed = {name: size / 1e6 / median(times) for name, times in seconds.items()}
    return {
        "megabytes": size / 1e6,
        "prepare_megabytes_per_second": speed["prepare"],
        "tokenizing_megabytes_per_second": speed["tokenizing"],
        "ratio": speed["prepare"] / speed["tokenizing"],
    }


if __name__ == "__main__":
    main()
