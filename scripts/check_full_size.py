"""Makes, saves, loads and runs a model of the full 2.7B shape, with random weights in bfloat16.

    python scripts/check_full_size.py [--directory DIR] [--layers 32]

Takes some minutes, 12 GB of memory and 6 GB of disk. Ends with status 1 if anything is not as it
was saved.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

from gpt_neox_japanese import GPTNeoXJapaneseConfig, GPTNeoXJapaneseForCausalLM

PROMPT = torch.tensor([[30014, 26883, 26638, 27228]])


def main() -> None:
    """Run every step, telling each as it ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, help="where the checkpoints are written")
    parser.add_argument("--layers", type=int, default=32)
    arguments = parser.parse_args()
    config = GPTNeoXJapaneseConfig(num_hidden_layers=arguments.layers)
    with tempfile.TemporaryDirectory(dir=arguments.directory) as scratch:
        first, second = Path(scratch, "first"), Path(scratch, "second")
        texts = [write_random(config, first), reload(first, second), reload(second, None)]
    if any(text != texts[0] for text in texts):
        sys.exit(f"the reloaded models write something else: {texts}")
    report("all three models write the same")


def write_random(config: GPTNeoXJapaneseConfig, directory: Path) -> list[int]:
    """Make a model, save it in shards, and return what it writes."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    torch.manual_seed(0)
    model = GPTNeoXJapaneseForCausalLM(config).eval()  # type: ignore[no-untyped-call]
    torch.set_default_dtype(default)
    report(f"made {model.num_parameters():,} parameters")
    model.save_pretrained(directory, max_shard_size="2GB")
    report("saved")
    return continued(model)


def reload(source: Path, copy: Path | None) -> list[int]:
    """Load a model, save it in one file if asked, and return what it writes."""
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    model.eval()  # type: ignore[no-untyped-call]
    report(f"loaded {sum(file.stat().st_size for file in source.glob('*.safetensors')):,} bytes")
    text = continued(model)
    if copy is not None:
        model.save_pretrained(copy, max_shard_size="100GB")
        report("saved again")
    return text


def continued(model: GPTNeoXJapaneseForCausalLM) -> list[int]:
    """The ids of eight greedy tokens."""
    mask = torch.ones_like(PROMPT)
    written = model.generate(PROMPT, attention_mask=mask, max_new_tokens=8, do_sample=False)
    report("generated 8 tokens")
    ids: list[int] = written[0].tolist()
    return ids


def report(what: str) -> None:
    """Tell time and peak memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{time.process_time():8.1f} s of work {peak:6.1f} GB at most   {what}", flush=True)


if __name__ == "__main__":
    main()
