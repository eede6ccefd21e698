"""What fuzzers begin with: a vocabulary of 289 ids, small models, folders kept in memory."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpt_neox_japanese import Codec

__all__ = ["lay_out", "make_models", "small_codec"]

_PIECES = ("猫", "吾輩", "は", "で,デ", "ある", "。", "、", "名前", "ー", "a", "b")
_TAGS = (
    *("<BR>", "<SP>", "<TAB>", "<URL>", "<EMAIL>", "<TEL>", "<DATE>", "<PRICE>", "<BLOCK>"),
    *("<KIGOU>", "<U2000U2BFF>", "<|emoji1|>"),
    *(f"<|byte{byte}|>" for byte in range(256)),
    *("<|startoftext|>", "<|endoftext|>"),
)

_TEMPLATE = """{% for message in messages %}{{ message.role }}: {{ message.content }}<BR>
{% endfor %}{% if add_generation_prompt %}{{ bos_token }}{% endif %}"""


def small_codec() -> Codec:
    """A tokenizer whose files are read in a millisecond."""
    from gpt_neox_japanese import Codec
    from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

    forms = (*(tuple(piece.split(",")) for piece in _PIECES), *((tag,) for tag in _TAGS))
    return Codec(Vocabulary(forms, {"😀": "<|emoji1|>"}, {"<|emoji1|>": "😀"}))


def lay_out(source: Path, target: Path) -> None:
    """Write the files of a folder that does not change into another.

    Args:
        source: Read once, and then kept in memory.
        target: Made, with its parents, if need be.
    """
    for name, data in _contents(source):
        file = target / name
        try:
            file.write_bytes(data)
        except FileNotFoundError:
            file.parent.mkdir(parents=True)
            file.write_bytes(data)


@cache
def _contents(folder: Path) -> tuple[tuple[str, bytes], ...]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return tuple((str(file.relative_to(folder)), file.read_bytes()) for file in files)


def make_models(folder: Path, codec: Codec) -> None:
    """Make a small model of each kind: in each weight format, in shards, as an adapter, for others.

    Args:
        folder: Gets a folder for each, of its name.
        codec: Their tokenizer.
    """
    for name, hidden, layers in (("small", 16, 2), ("tiny", 16, 1), ("wide", 64, 1)):
        _make_model(folder / name, codec, hidden, layers)
    _make_variants(folder)


def _make_model(directory: Path, codec: Codec, hidden: int, layers: int) -> None:
    import torch

    from gpt_neox_japanese import GPTNeoXJapaneseConfig, GPTNeoXJapaneseForCausalLM

    torch.manual_seed(0)
    config = GPTNeoXJapaneseConfig(
        vocab_size=len(codec.vocabulary),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=32,
        initializer_range=0.3,
        bos_token_id=codec.vocabulary.ids["<|startoftext|>"],
        eos_token_id=codec.vocabulary.ids["<|endoftext|>"],
    )
    model = GPTNeoXJapaneseForCausalLM(config)
    torch.nn.init.normal_(model.gpt_neox_japanese.final_layer_norm.bias)  # as of a trained one
    model.save_pretrained(directory)
    codec.save(directory)


def _make_variants(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    from gpt_neox_japanese.files.tensor_files import read_tensors
    from gpt_neox_japanese.interop.gguf_writer import write_gguf
    from gpt_neox_japanese.interop.neox_checkpoints import to_neox
    from gpt_neox_japanese.quantization.convert import convert

    tiny = folder / "tiny"
    for name, source, bits in (
        ("bfloat16", "tiny", 16),
        ("int8", "small", 8),
        ("int4", "wide", 4),
    ):
        convert(folder / source, folder / name, bits, read=read_tensors)
    weights = load_file(tiny / "model.safetensors")
    halves = {
        "model-1.safetensors": sorted(weights)[::2],
        "model-2.safetensors": sorted(weights)[1::2],
    }
    index = {
        "metadata": {},
        "weight_map": {n: shard for shard, names in halves.items() for n in names},
    }
    for name in ("shards", "pickle", "pickles", "adapter"):
        shutil.copytree(tiny, folder / name)
    for name in ("shards", "pickle", "pickles"):
        (folder / name / "model.safetensors").unlink()
    for shard, names in halves.items():
        part = {name: weights[name] for name in names}
        save_file(part, folder / "shards" / shard, metadata={"format": "pt"})
        torch.save(part, folder / "pickles" / shard.replace(".safetensors", ".bin"))
    (folder / "shards/model.safetensors.index.json").write_text(json.dumps(index))
    text = json.dumps(index).replace(".safetensors", ".bin")
    (folder / "pickles/pytorch_model.bin.index.json").write_text(text)
    torch.save(weights, folder / "pickle" / "pytorch_model.bin")
    rank = 2
    layer = "base_model.model.gpt_neox_japanese.layers.0.attention.query_key_value"
    adapter = {
        f"{layer}.lora_A.weight": torch.ones(rank, 16),
        f"{layer}.lora_B.weight": torch.ones(48, rank),
    }
    save_file(adapter, folder / "adapter" / "adapter_model.safetensors", {"format": "pt"})
    fields = {"peft_type": "LORA", "r": rank, "target_modules": ["query_key_value"]}
    fields |= {"base_model_name_or_path": str(tiny), "task_type": "CAUSAL_LM"}
    fields |= {"layers_to_transform": [0]}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(fields))
    (folder / "bfloat16" / "chat_template.jinja").write_text(_TEMPLATE)
    for name, source, kind in (("gguf", "tiny", "f32"), ("gguf-q8", "wide", "q8_0")):
        (folder / name).mkdir()
        write_gguf(folder / source, folder / name / "model.gguf", kind=kind)
    to_neox(tiny, folder / "gpt-neox")
    to_neox(folder / "wide", folder / "gpt-neox-ranks", model_parallel=2)
