"""The page of a model on the Hub: `README.md`, made of what its run left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gpt_neox_japanese.errors import NeoXJapaneseError
from gpt_neox_japanese.files.json_files import read_object
from gpt_neox_japanese.files.model_config import read_config, sizes
from gpt_neox_japanese.files.model_directory import DEFAULT, is_hub_id
from gpt_neox_japanese.files.run_records import DATA_RECORD, LOSS_LOG, PICTURE, RECORD, SAMPLES
from gpt_neox_japanese.files.tensor_files import weight_files
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.training.data.conversations import CHAT_TEMPLATE
from gpt_neox_japanese.training.report.page import (
    measurements,
    quoted,
    read_log,
    read_samples,
)
from gpt_neox_japanese.training.settings import chosen_optimizer

__all__ = ["model_card", "run_of"]

# What a reader wants to know of how a run was set, in this order.
_SETTINGS = ("optimizer", "learning_rate", "schedule", "batch_size", "sequence_length", "dtype")
_SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty")

_CONTINUES = "A language model that continues Japanese text. It knows nothing but how texts go on:"
_ANSWERS = (
    "A language model that answers in Japanese. It knows nothing but how conversations go on:"
)


def run_of(directory: Path) -> Path | None:
    """The directory of the run that made a model, if it is this one, or above `merged`.

    Args:
        directory: Of a model.
    """
    candidates = [directory, *([directory.parent] if directory.name == "merged" else [])]
    return next((path for path in candidates if (path / RECORD).is_file()), None)


def model_card(
    directory: Path, repository: str, *, license_id: str, data: str | None = None
) -> str:
    """Write the page of a model.

    Args:
        directory: Of the model; if a run made it, its records are there, or above it.
        repository: The Hub id that it will have.
        license_id: The licence, by the Hub's names, such as "apache-2.0".
        data: What it learned from, in the author's words.

    Returns:
        Markdown, with the Hub's fields before it.

    Raises:
        CheckpointError: `config.json` is broken, or there are no weights.
        VocabularyError: The vocabulary is missing or broken.
    """
    config, codec, run = read_config(directory), Codec.load(directory), run_of(directory)
    config = sizes(config) | config
    record = _optional(run / RECORD) if run else {}
    learned = _optional(run / DATA_RECORD) if run else {}
    log = read_log(run / LOSS_LOG) if run else []
    chats = (directory / CHAT_TEMPLATE).is_file()
    base = str(record.get("init_from") or "")
    if base != DEFAULT and not is_hub_id(base):  # a path says nothing elsewhere
        base = ""
    fields = {
        "language": "ja",
        "license": license_id,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["gpt-neox-japanese"],
        **({"base_model": base} if is_hub_id(base) else {}),
    }
    facts = {**_of_model(directory, config, codec), **_of_data(learned)}
    facts |= {**_of_run(record, log, base), **_of_measurements(record, log, learned)}
    facts |= _of_sampling(directory)
    rows = "".join(f"| {name} | {value} |\n" for name, value in facts.items())
    picture = f"![bits per character during the run]({PICTURE})\n\n" * _has_picture(run, log)
    return (
        f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---\n\n"
        f"# {repository.rpartition('/')[2]}\n\n"
        f"{_ANSWERS if chats else _CONTINUES} what it writes is nobody's statement, and may be"
        " wrong.\n\n"
        f"| | |\n|---|---|\n{rows}\n{picture}"
        f"## Data\n\n{data or 'The author has not described the texts it learned from.'}\n\n"
        f"{_samples(run)}{_use(repository, chats)}{_without_us(repository, config, codec, chats)}"
    )


def _of_model(directory: Path, config: Mapping[str, Any], codec: Codec) -> dict[str, str]:
    size = sum(file.stat().st_size for file in weight_files(directory)[1])
    stored = config.get("dtype") or config.get("torch_dtype") or "float32"
    if quantization := config.get("quantization_config"):
        stored = f"{quantization.get('bits', 'fewer')} bits, of gpt-neox-japanese"
    return {
        "Architecture": f"GPT-NeoX-Japanese, {config['num_hidden_layers']} layers,"
        f" {config['hidden_size']} channels, {config['num_attention_heads']} heads, context of"
        f" {config['max_position_embeddings']:,} tokens",
        "Weights": f"{size / 1e6:,.1f} MB, {stored}",
        "Vocabulary": f"{len(codec):,} ids",
    }


def _of_data(learned: Mapping[str, Any]) -> dict[str, str]:
    sizes = learned.get("sizes")
    return {name: str(size) for name, size in sizes.items()} if isinstance(sizes, dict) else {}


def _of_run(
    record: Mapping[str, Any], log: Sequence[Mapping[str, Any]], base: str
) -> dict[str, str]:
    facts = {"Trained on from": f"[{base}](https://huggingface.co/{base})"} if base else {}
    if base == DEFAULT:
        facts = {"Trained on from": "the model in the package gpt-neox-japanese"}
    if log:
        facts["Training"] = f"{log[-1]['step']:,} steps, {log[-1]['tokens']:,} tokens"
    shown = {name: record[name] for name in _SETTINGS if record.get(name) is not None}
    rank = record.get("lora_rank") or 0
    if "optimizer" in shown:
        shown["optimizer"] = chosen_optimizer(shown["optimizer"], rank)
    if rank:
        shown["LoRA rank"] = rank
    if shown:
        facts["Settings"] = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in shown.items())
    return facts


def _of_measurements(
    record: Mapping[str, Any], log: Sequence[dict[str, Any]], learned: Mapping[str, Any]
) -> dict[str, str]:
    """How well the model does that the run left."""
    name = "held_out_bits_per_character"
    measured = measurements(log)
    if not measured:
        return {}
    keeps_best = record.get("keep_best")
    kept = min(measured, key=lambda line: line[name]) if keeps_best else measured[-1]
    return {
        "Held-out figure": f"**{kept[name]:.3f} bits per character** of"
        f" {learned.get('measures', 'held-out text')} after step {kept['step']:,}"
        " (smaller is better)"
    }


def _of_sampling(directory: Path) -> dict[str, str]:
    given = _optional(directory / "generation_config.json")
    shown = [f"{name} {given[name]}" for name in _SAMPLING if given.get(name) is not None]
    return {"Sampling": f"{', '.join(shown)} (the defaults in this repository)"} if shown else {}


def _samples(run: Path | None) -> str:
    """The last texts that the run wrote."""
    texts = read_samples(run / SAMPLES) if run else []
    return f"## What it writes\n\n{quoted(texts)}" if texts else ""


def _use(repository: str, chats: bool) -> str:
    command = "chat" if chats else 'generate "吾輩は"'
    shell = f"""## Use

With the package `gpt-neox-japanese`:

```sh
neox-ja {command} --model {repository}
neox-ja serve --model {repository}
```

"""
    if chats:  # a plain prompt would be no question
        return shell
    return f"""{shell}```python
from gpt_neox_japanese import TextGenerator

print(TextGenerator.from_pretrained("{repository}").generate("吾輩は", max_new_tokens=60))
```

"""


def _without_us(repository: str, config: Mapping[str, Any], codec: Codec, chats: bool) -> str:
    """How transformers reads it by itself, and what it reads otherwise."""
    if config.get("quantization_config"):
        return "transformers alone cannot read these weights; gpt-neox-japanese can.\n"
    comma = " but for the comma of ASCII, which it takes for a byte"
    prompt = 'prompt = tokenizer("吾輩は", return_tensors="pt")'
    if chats:
        prompt = """messages = [{"role": "user", "content": "今日は。"}]
prompt = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)"""
    comma *= not codec.legacy and "," in codec.vocabulary.ids
    return f"""transformers reads it without that package, with the same ids{comma}.
When it decodes, it loses spaces at the ends, and characters that are written as bytes.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repository}")
model = AutoModelForCausalLM.from_pretrained("{repository}")
{prompt}
ids = model.generate(**prompt, max_new_tokens=60, do_sample=True)
print(tokenizer.decode(ids[0]))
```
"""


def _has_picture(run: Path | None, log: Sequence[Mapping[str, Any]]) -> bool:
    return run is not None and (run / PICTURE).is_file() and bool(log)


def _optional(path: Path) -> dict[str, Any]:
    """A JSON object, or nothing where there is none."""
    try:
        return read_object(path)
    except NeoXJapaneseError:
        return {}
