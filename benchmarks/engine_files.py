"""One model of the 2.7B shape on disk, in the formats of every engine that is compared.

    python benchmarks/engine_files.py DIR --vocabulary DIR [--layers 32]

Random weights, written once as our checkpoint in bfloat16, and from it our int8 and int4 (by plain
rounding: the search for scales takes minutes and changes no speed), GGUF in BF16, Q8_0 and Q4_0
for llama.cpp, and int8 for CTranslate2. The vocabulary is that of the published model. Takes 22 GB
of disk; what is there is not made again. Needs `pip install gguf ctranslate2`.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt_neox_japanese import (
    GPTNeoXJapaneseConfig,
    GPTNeoXJapaneseForCausalLM,
    GPTNeoXJapaneseTokenizer,
)
from gpt_neox_japanese.files.tensor_files import read_tensors
from gpt_neox_japanese.quantization.convert import convert

CONTEXT = 2048
_LAYER = "gpt_neox_japanese.layers."


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--vocabulary", type=Path, required=True, help="vocab.txt and emoji.json")
    parser.add_argument("--layers", type=int, default=32)
    arguments = parser.parse_args()
    root: Path = arguments.directory
    root.mkdir(parents=True, exist_ok=True)
    config = GPTNeoXJapaneseConfig(num_hidden_layers=arguments.layers)
    source = root / "ours-bf16"
    make(source, lambda path: write_random(config, path, arguments.vocabulary))
    for bits in (8, 4):
        make(
            root / f"ours-int{bits}",
            partial(convert, source, bits=bits, read=read_tensors, search=False),
        )
    for name in ("BF16", "Q8_0", "Q4_0"):
        make(
            root / f"llama-{name}.gguf",
            lambda path, name=name: write_gguf(  # type: ignore[misc]
                config, read_tensors(source), path, name
            ),
        )
    make(
        root / "ctranslate2-int8",
        lambda path: write_ctranslate2(config, read_tensors(source), path),
    )


def make(path: Path, write: Callable[[Path], object]) -> None:
    """Write under another name, so that what has the right one is complete."""
    if path.exists():
        return
    print(path.name, flush=True)
    unfinished = path.with_name(f"unfinished-{path.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.unlink(missing_ok=True)
    write(unfinished)
    unfinished.rename(path)


def write_random(config: GPTNeoXJapaneseConfig, directory: Path, vocabulary: Path) -> None:
    """Our checkpoint."""
    GPTNeoXJapaneseTokenizer.from_pretrained(vocabulary).save_pretrained(directory)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = GPTNeoXJapaneseForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(directory, max_shard_size="100GB")


def by_kind(config: GPTNeoXJapaneseConfig, query_key_value: Tensor) -> Tensor:
    """(head, query or key or value, channel) rows, as (query or key or value, head, channel)."""
    heads, hidden = config.num_attention_heads, config.hidden_size
    return query_key_value.view(heads, 3, -1, hidden).transpose(0, 1).reshape(-1, hidden)


# ---- llama.cpp -----------------------------------------------------------------------------------

_GGUF_LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "input_layernorm.bias": "attn_norm.bias",
    "attention.query_key_value.weight": "attn_qkv.weight",
    "attention.dense.weight": "attn_output.weight",
    "attention.dense_bias": "attn_output.bias",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "post_attention_layernorm.bias": "ffn_norm.bias",
    "mlp.dense_h_to_4h.weight": "ffn_up.weight",
    "mlp.dense_4h_to_h.weight": "ffn_down.weight",
}
_GGUF_REST = {
    "gpt_neox_japanese.embed_in.weight": "token_embd.weight",
    "gpt_neox_japanese.final_layer_norm.weight": "output_norm.weight",
    "gpt_neox_japanese.final_layer_norm.bias": "output_norm.bias",
}


def write_gguf(
    config: GPTNeoXJapaneseConfig, tensors: Mapping[str, Tensor], path: Path, kind: str
) -> None:
    """As architecture `gptneox`, which wants a head of its own and every bias."""
    import gguf

    writer = gguf.GGUFWriter(path, "gptneox", use_temp_file=True)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.hidden_size * config.intermediate_multiple_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rotary_emb_base)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_parallel_residual(False)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{i}>" for i in range(config.vocab_size)])
    writer.add_token_scores([-float(i) for i in range(config.vocab_size)])
    writer.add_token_types([gguf.TokenType.NORMAL] * config.vocab_size)
    for name, tensor in gguf_tensors(config, tensors):
        if tensor.ndim == 1:
            writer.add_tensor(name, tensor.float().numpy())
            continue
        # As in our int4, table and head have eight bits.
        table = name in ("token_embd.weight", "output.weight")
        form = gguf.GGMLQuantizationType["Q8_0" if table and kind == "Q4_0" else kind]
        numbers = gguf.quants.quantize(tensor.float().numpy(), form)
        writer.add_tensor(name, numbers, raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_tensors(
    config: GPTNeoXJapaneseConfig, tensors: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Our tensors under llama.cpp's names, and zeros for the biases that we do not have."""
    hidden = config.hidden_size
    given = set()
    for name, tensor in tensors.items():
        if name in _GGUF_REST:
            given.add(_GGUF_REST[name])
            yield _GGUF_REST[name], tensor
        elif name.startswith(_LAYER):
            index, kind = name.removeprefix(_LAYER).split(".", 1)
            if kind in _GGUF_LAYER:
                rows = by_kind(config, tensor) if "query_key_value" in kind else tensor
                given.add(f"blk.{index}.{_GGUF_LAYER[kind]}")
                yield f"blk.{index}.{_GGUF_LAYER[kind]}", rows
    yield "output.weight", tensors["gpt_neox_japanese.embed_in.weight"]
    for layer in range(config.num_hidden_layers):
        sizes = {"attn_qkv": 3 * hidden, "attn_output": hidden, "ffn_up": 4 * hidden}
        for part, size in (sizes | {"ffn_down": hidden}).items():
            if f"blk.{layer}.{part}.bias" not in given:
                yield f"blk.{layer}.{part}.bias", torch.zeros(size)


# ---- CTranslate2 ---------------------------------------------------------------------------------


def write_ctranslate2(
    config: GPTNeoXJapaneseConfig, tensors: Mapping[str, Tensor], directory: Path
) -> None:
    """As a GPT-NeoX without parallel residual."""
    from ctranslate2.specs import common_spec, transformer_spec

    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        config.num_hidden_layers,
        config.num_attention_heads,
        activation=common_spec.Activation.GELU,
        rotary_dim=config.hidden_size // config.num_attention_heads,
        rotary_interleave=False,
    )

    def array(name: str) -> NDArray[Any]:
        return tensors[f"gpt_neox_japanese.{name}"].float().numpy()

    def norm(layer_norm: Any, name: str) -> None:
        layer_norm.gamma, layer_norm.beta = array(f"{name}.weight"), array(f"{name}.bias")

    def linear(target: Any, weight: NDArray[Any]) -> None:
        target.weight, target.bias = weight, np.zeros(len(weight), np.float32)

    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = array("embed_in.weight")
    linear(decoder.projection, array("embed_in.weight"))
    norm(decoder.layer_norm, "final_layer_norm")
    for index, layer in enumerate(decoder.layer):
        at = f"layers.{index}"
        mixed = tensors[f"{_LAYER}{index}.attention.query_key_value.weight"]
        norm(layer.self_attention.layer_norm, f"{at}.input_layernorm")
        linear(layer.self_attention.linear[0], by_kind(config, mixed).float().numpy())
        linear(layer.self_attention.linear[1], array(f"{at}.attention.dense.weight"))
        norm(layer.ffn.layer_norm, f"{at}.post_attention_layernorm")
        linear(layer.ffn.linear_0, array(f"{at}.mlp.dense_h_to_4h.weight"))
        linear(layer.ffn.linear_1, array(f"{at}.mlp.dense_4h_to_h.weight"))
    spec.register_vocabulary([f"<{i}>" for i in range(config.vocab_size)])
    spec.config.bos_token = spec.config.unk_token = "<0>"
    spec.config.eos_token = "<1>"
    spec.validate()
    spec.optimize(quantization="int8")
    directory.mkdir()
    spec.save(str(directory))


if __name__ == "__main__":
    main()
