"""Small models and checkpoints of gpt-neox, and ways to change them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from gpt_neox_japanese import GPTNeoXJapaneseConfig, GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.assets import default_model_directory
from gpt_neox_japanese.files.model_directory import TOKENIZER_FILES
from gpt_neox_japanese.files.tensor_files import read_pickle, read_tensors

DEFAULT = default_model_directory()
IDS = 8000  # of the default vocabulary
YML = "configs/gpt-neox-japanese.yml"
FIRST, LAST = "layer_02-model_00-model_states.pt", "layer_03-model_00-model_states.pt"


def make_model(path: Path, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """A small random model with the default vocabulary; no tensor of it is zero."""
    fields = {
        "vocab_size": IDS,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "max_position_embeddings": 32,
        "bos_token_id": 7996,
        "eos_token_id": 7999,
        "tie_word_embeddings": False,
    }
    model = GPTNeoXJapaneseForCausalLM(GPTNeoXJapaneseConfig(**(fields | changes)))
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_()
    model.to(dtype).save_pretrained(path)
    for name in TOKENIZER_FILES:
        if (DEFAULT / name).is_file():
            shutil.copyfile(DEFAULT / name, path / name)
    return path


def change_options(step: Path, **changes: Any) -> None:
    options = yaml.safe_load((step / YML).read_text())
    (step / YML).write_text(yaml.safe_dump(options | changes))


def change_part(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    part = read_pickle(path)
    part = {name: tensor.clone() for name, tensor in part.items()}
    change(part)
    torch.save(part, path)


def assert_same_weights(one: Path, other: Path) -> None:
    a, b = read_tensors(one), read_tensors(other)
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert tensor.dtype == b[name].dtype
        assert torch.equal(tensor, b[name]), name


def whole_file(step: Path, rank: int) -> dict[str, torch.Tensor]:
    """What gpt-neox saves of a GPU without pipeline parallelism."""
    module = {}
    for path in step.glob(f"layer_*-model_{rank:02}-model_states.pt"):
        index = int(path.name[6:8])
        module.update({f"sequential.{index}.{n}": t for n, t in read_pickle(path).items()})
    return module
