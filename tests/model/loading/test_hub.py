"""Loading models from a Hub."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from tests.hub import environment_of
from tests.model.conftest import MakeModel

LAYERS = "gpt_neox_japanese.layers"
NORM = "gpt_neox_japanese.final_layer_norm.weight"
IDS = [[5, 6, 7, 8]]

LOAD = f"""
import sys, warnings, torch
warnings.simplefilter("ignore")
import gpt_neox_japanese
gpt_neox_japanese.register()
from transformers import AutoModelForCausalLM
results = {{}}
for name in ("whole", "sharded", "adapter", "hostile", "misshapen", "adapter_of_misshapen"):
    try:
        model = AutoModelForCausalLM.from_pretrained("someone/" + name, cache_dir=sys.argv[1])
        assert type(model) is gpt_neox_japanese.GPTNeoXJapaneseForCausalLM, type(model)
        results[name] = model(torch.tensor({IDS})).logits.detach()
    except (OSError, ValueError) as error:
        results[name] = str(error)
torch.save(results, sys.argv[2])
"""


def publish(model: PreTrainedModel, published: Path) -> None:
    """A model in one file, the same in many, an adapter of it, and what must be refused."""
    model.save_pretrained(published / "whole")
    for name in ("sharded", "hostile"):
        model.save_pretrained(published / name, max_shard_size="20KB")
    index = published / "hostile/model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = dict.fromkeys(content["weight_map"], "../../../escaped.safetensors")
    index.write_text(json.dumps(content))
    shutil.copy(published / "whole/model.safetensors", published / "hostile/escaped.safetensors")
    shutil.copytree(published / "whole", published / "misshapen")
    tensors = load_file(published / "whole/model.safetensors")
    tensors[NORM] = tensors[NORM][:-1].clone()
    save_file(tensors, published / "misshapen/model.safetensors", {"format": "pt"})
    for name, base in (("adapter", "whole"), ("adapter_of_misshapen", "misshapen")):
        (published / name).mkdir()
        fields = {"peft_type": "LORA", "r": 1, "target_modules": ["query_key_value"]}
        fields |= {"base_model_name_or_path": f"someone/{base}", "task_type": "CAUSAL_LM"}
        (published / name / "adapter_config.json").write_text(json.dumps(fields))
        hidden = model.config.hidden_size
        layers = range(model.config.num_hidden_layers)
        adapter = {
            f"base_model.model.{LAYERS}.{layer}.attention.query_key_value.lora_{part}.weight": (
                torch.zeros(shape)
            )
            for layer in layers
            for part, shape in (("A", (1, hidden)), ("B", (3 * hidden, 1)))
        }
        save_file(adapter, published / name / "adapter_model.safetensors", {"format": "pt"})


def test_models_are_loaded_from_a_hub_and_only_into_its_cache(
    tiny_model: MakeModel, hub: str, tmp_path: Path
) -> None:
    model = tiny_model()
    publish(model, tmp_path / "published")
    environment = environment_of(hub, tmp_path)
    command = [sys.executable, "-c", LOAD, str(tmp_path / "cache"), str(tmp_path / "results")]
    subprocess.run(command, env=environment, capture_output=True, timeout=300, check=True)
    results = torch.load(tmp_path / "results")
    expected = model(torch.tensor(IDS)).logits
    assert torch.equal(results["whole"], expected)
    assert torch.equal(results["sharded"], expected)
    assert torch.equal(results["adapter"], expected)
    for name in ("misshapen", "adapter_of_misshapen"):
        assert f"do not fit config.json: {NORM} has shape" in results[name]
    assert isinstance(results["hostile"], str)
    escaped = [file.parent.name for file in tmp_path.rglob("escaped*")]
    assert escaped == ["hostile"]  # where it is published, and nowhere else
