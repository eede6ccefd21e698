"""Checkpoints of EleutherAI/gpt-neox ↔ model directories, bit for bit.

The names and the packing of `query_key_value`, [heads, 3, head_dim], are ours; `neox_parts` tells
where the tensors are. What gpt-neox has and this architecture has not are biases of the linear
layers: only the last layer's `dense` may have one that is not zero, our `dense_bias`. All of
them are written, as zeros, because gpt-neox cannot run an MLP with GELU without.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from gpt_neox_japanese.checks import check_integer
from gpt_neox_japanese.errors import ArgumentError, CheckpointError
from gpt_neox_japanese.files import outputs
from gpt_neox_japanese.files.model_directory import TOKENIZER_FILES
from gpt_neox_japanese.files.tensor_files import read_tensors, read_weights
from gpt_neox_japanese.interop.neox_config import (
    config_from_options,
    count_of,
    options_from_config,
    read_model_config,
    read_options,
    vocabulary_multiple,
)
from gpt_neox_japanese.interop.neox_parts import (
    BIASES,
    LATEST,
    NeoXParts,
    Part,
    find_step,
    layer_file,
    rank_file,
    split,
)
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.quantization.checkpoint_tensors import check_exportable
from gpt_neox_japanese.quantization.convert import of_floats
from gpt_neox_japanese.tokenizer.codec import END_OF_TEXT, Codec
from gpt_neox_japanese.tokenizer.hf.tokenizer import GPTNeoXJapaneseTokenizer
from gpt_neox_japanese.tokenizer.model_check import check_model

__all__ = ["from_neox", "to_neox"]

Progress = Callable[[int, int], None]

_PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bfloat16", torch.float16: "fp16"}

_PREFIX = "gpt_neox_japanese."
# Our names → gpt-neox's.
_EMBEDDING = {f"{_PREFIX}embed_in.weight": "word_embeddings.weight"}
_LAYER = {
    "input_layernorm.weight": "input_layernorm.weight",
    "input_layernorm.bias": "input_layernorm.bias",
    "attention.query_key_value.weight": "attention.query_key_value.weight",
    "attention.dense.weight": "attention.dense.weight",
    "post_attention_layernorm.weight": "post_attention_layernorm.weight",
    "post_attention_layernorm.bias": "post_attention_layernorm.bias",
    "mlp.dense_h_to_4h.weight": "mlp.linear1.weight",
    "mlp.dense_4h_to_h.weight": "mlp.linear2.weight",
}
_LAST_BIAS = {"attention.dense_bias": "attention.dense.bias"}
_NORM = {
    f"{_PREFIX}final_layer_norm.weight": "norm.weight",
    f"{_PREFIX}final_layer_norm.bias": "norm.bias",
}
_HEAD = {"embed_out.weight": "final_linear.weight"}
_TABLES = {"word_embeddings.weight", "final_linear.weight"}

_TAG = "global_step0"
_SHARD_BYTES = 2 << 30
_MAX_RANKS = 1024


def from_neox(
    checkpoint: Path, vocabulary: Path, output: Path, *, progress: Progress | None = None
) -> int:
    """Write a model directory with the weights of a gpt-neox checkpoint.

    Args:
        checkpoint: A directory `global_stepS`, or the one that holds `latest`.
        vocabulary: A directory with the vocab.txt and emoji.json that the model was trained with.
        output: Directory to make.
        progress: Called with the number of parts done and of all parts.

    Returns:
        Bytes of the weights.

    Raises:
        CheckpointError: The checkpoint is broken, or of another architecture or vocabulary.
        VocabularyError: The vocabulary is missing or broken.
        OutputError: The output exists or cannot be written.
        OSError: The disk is full or fails.
    """
    partial = outputs.partial_directory(output, "converted")
    outputs.check_output(output, partial=partial)
    codec = Codec.load(vocabulary)
    step = find_step(checkpoint)
    options = read_options(step / "configs")
    num_ranks = count_of(options, "model_parallel_size", 1)
    parts = NeoXParts(step, num_layers=count_of(options, "num_layers"), num_ranks=num_ranks)
    if not parts.dtypes <= _PRECISIONS.keys():
        names = ", ".join(sorted(map(str, parts.dtypes)))
        raise CheckpointError(
            f"{str(step)!r} holds {names}; float32, bfloat16 and float16 are read"
        )
    multiple = vocabulary_multiple(options, num_ranks)
    config = config_from_options(
        options,
        intermediate_size=len(parts.read(2)["mlp.linear1.weight"]),
        tied=parts.tied,
        vocab_size=_num_ids(codec, parts.tables(), multiple),
        bos_token_id=codec.token_to_id("<|startoftext|>"),
        eos_token_id=codec.token_to_id(END_OF_TEXT),
    )
    # The widest type holds the numbers of all others exactly.
    config.dtype = reduce(torch.promote_types, parts.dtypes)
    check_model(codec, config.to_dict(), checkpoint)
    with outputs.growing(partial, output, "config.json"):
        tensors = _our_tensors(parts, config, multiple, repr(str(step)), progress)
        size = _write_shards(partial, ((name, t.to(config.dtype)) for name, t in tensors))
        _copy_tokenizer(vocabulary, partial)
        config.save_pretrained(partial)
    return size


def to_neox(
    model: Path, output: Path, *, model_parallel: int = 1, progress: Progress | None = None
) -> int:
    """Write a checkpoint that gpt-neox goes on from, with its configuration.

    Args:
        model: A model directory; a quantised one becomes bfloat16.
        output: Directory to make.
        model_parallel: Over how many GPUs each layer is split; it must divide the heads.
        progress: Called with the number of parts done and of all parts.

    Returns:
        Bytes of the weights.

    Raises:
        CheckpointError: The model is broken, or gpt-neox has no such model.
        ArgumentError: It cannot be split so.
        OutputError: The output exists or cannot be written.
        OSError: The disk is full or fails.
    """
    check_integer("model_parallel", model_parallel, ArgumentError, minimum=1, maximum=_MAX_RANKS)
    partial = outputs.partial_directory(output, "converted")
    outputs.check_output(output, partial=partial)
    with of_floats(model) as floats:
        return _write_checkpoint(floats, output, partial, model_parallel, progress)


def _write_checkpoint(
    model: Path, output: Path, partial: Path, model_parallel: int, progress: Progress | None
) -> int:
    config = read_model_config(model)
    if config.num_attention_heads % model_parallel:
        raise ArgumentError(
            f"a model of {config.num_attention_heads} heads cannot be split over {model_parallel}"
            " GPUs; choose a divisor of the number of heads"
        )
    num_ids = check_model(Codec.load(model), config.to_dict(), model)
    check_exportable(config.to_dict(), read_weights(model), str(model))
    tensors = read_tensors(model)
    head, embedding = (tensors.get(name) for name in (*_HEAD, *_EMBEDDING))
    if head is not None and embedding is not None:  # a head of its own, whatever config.json says
        config.tie_word_embeddings = torch.equal(head, embedding)
    dtype = _common_dtype(tensors)
    options = options_from_config(
        config, num_ids=num_ids, model_parallel=model_parallel, precision=_PRECISIONS[dtype]
    )
    place = outputs.target(output)
    options |= {
        "tokenizer_type": "HFTokenizer",
        "vocab_file": str(place / "tokenizer.json"),
        "load": str(place),
        "finetune": True,  # there is no state of an optimizer to go on with
    }
    multiple = vocabulary_multiple(options, model_parallel)
    with outputs.growing(partial, output, LATEST):
        step = partial / _TAG
        (step / "configs").mkdir(parents=True)
        text = yaml.safe_dump(options, sort_keys=False, allow_unicode=True)
        (step / "configs" / "gpt-neox-japanese.yml").write_text(
            text, encoding="utf-8", newline="\n"
        )
        layout = list(_layout(config))
        for done, (index, names) in enumerate(layout, 1):
            part = {theirs: tensors[ours].to(dtype) for ours, theirs in names.items()}
            for name in _TABLES & part.keys():
                part[name] = _pad(part[name][:num_ids], multiple)
            if index in range(2, config.num_hidden_layers + 2):
                part = _zero_biases(part) | part
            _write_part(step, index, part, model_parallel)
            if progress is not None:
                progress(done, len(layout))
        for rank in range(model_parallel):
            torch.save(_training_state(model_parallel), step / rank_file(rank))
        size = sum(file.stat().st_size for file in step.glob("*.pt"))
        _copy_tokenizer(model, partial)
        _write_tokenizer(partial / "tokenizer.json", model, num_ids)
        (partial / LATEST).write_text(_TAG, encoding="ascii", newline="\n")
    return size


def _layout(config: GPTNeoXJapaneseConfig) -> Iterator[tuple[int, dict[str, str]]]:
    """The number of each part that holds weights, and our names of them → gpt-neox's."""
    layers = config.num_hidden_layers
    yield 0, _EMBEDDING
    for layer in range(layers):
        names = _LAYER | (_LAST_BIAS if layer == layers - 1 else {})
        begin = f"{_PREFIX}layers.{layer}."
        yield layer + 2, {begin + ours: theirs for ours, theirs in names.items()}
    yield layers + 3, _NORM
    if not config.tie_word_embeddings:
        yield layers + 4, _HEAD


def _shape(theirs: str, config: GPTNeoXJapaneseConfig) -> tuple[int, ...]:
    """What a tensor must have; of embedding and head without rows that only pad them."""
    hidden = config.hidden_size
    width = hidden * config.intermediate_multiple_size
    if theirs in _TABLES:
        return config.vocab_size, hidden
    return {
        "attention.query_key_value.weight": (3 * hidden, hidden),
        "attention.dense.weight": (hidden, hidden),
        "mlp.linear1.weight": (width, hidden),
        "mlp.linear2.weight": (hidden, width),
        "mlp.linear1.bias": (width,),
        "attention.query_key_value.bias": (3 * hidden,),
    }.get(theirs, (hidden,))


def _our_tensors(
    parts: NeoXParts,
    config: GPTNeoXJapaneseConfig,
    multiple: int,
    where: str,
    progress: Progress | None,
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a model directory, one part after the other."""
    layout = list(_layout(config))
    for done, (index, names) in enumerate(layout, 1):
        part, place = parts.read(index), f"{where}, part {index}"
        for name in BIASES.keys() & part.keys() - set(names.values()):
            if part[name].count_nonzero():
                raise CheckpointError(
                    f"{place}: {name} is not zero (the largest is"
                    f" {part[name].float().abs().max():.3g}); in GPT-NeoX-Japanese no linear layer"
                    " but the last attention.dense has a bias, so that this model is of another"
                    " architecture"
                )
        if index == config.num_hidden_layers + 1:
            zeros = torch.zeros_like(part["input_layernorm.bias"])
            part.setdefault("attention.dense.bias", zeros)
        for ours, theirs in names.items():
            tensor = part[theirs]
            if theirs in _TABLES:
                tensor = _cut(tensor, config.vocab_size, multiple, place)
            if tuple(tensor.shape) != (wanted := _shape(theirs, config)):
                raise CheckpointError(
                    f"{place}: {theirs} has shape {tuple(tensor.shape)}, and {wanted} fits its"
                    " configuration; copy the checkpoint again"
                )
            yield ours, tensor
        if progress is not None:
            progress(done, len(layout))


def _num_ids(codec: Codec, tables: list[Tensor], multiple: int) -> int:
    """The ids of a model: of all tokens but the last ones, where they are special and have no row.

    Zeros are no row where gpt-neox, or `to_neox`, may have filled up the vocabulary.
    """
    rows = len(tables[0])
    num_ids = min(codec.n_vocab, rows)
    while num_ids > max(len(codec.vocabulary), rows - multiple + 1):
        last = num_ids - 1
        token = codec.added_tokens.tokens.get(last)
        if token is None or not token.special or any(t[last:num_ids].any() for t in tables):
            break
        num_ids = last
    return num_ids


def _cut(table: Tensor, num_ids: int, multiple: int, where: str) -> Tensor:
    """Leave out the rows that fill up a vocabulary."""
    rows, padded = len(table), num_ids + -num_ids % multiple
    if rows != padded:
        raise CheckpointError(
            f"{where}: the model has {rows} rows, and gpt-neox gives {padded}"
            f" to a vocabulary of {num_ids} ids, a multiple of {multiple}"
            " (make_vocab_size_divisible_by times model_parallel_size); give the vocabulary that"
            " it was trained with"
        )
    return table[:num_ids]


def _pad(table: Tensor, multiple: int) -> Tensor:
    """Fill up a vocabulary, with rows of zeros."""
    return torch.nn.functional.pad(table, (0, 0, 0, -len(table) % multiple))


def _common_dtype(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The type that holds all numbers of a model."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _PRECISIONS:
            raise CheckpointError(
                f"{name} is {tensor.dtype}; gpt-neox takes float32, bfloat16 and float16"
            )
    return reduce(torch.promote_types, (tensor.dtype for tensor in tensors.values()))


def _zero_biases(part: Part) -> Part:
    """Zeros for each bias of a layer; row counts are those of its matrices."""
    weights = {name: part[name.replace(".bias", ".weight")] for name in BIASES}
    return {name: torch.zeros(len(w), dtype=w.dtype) for name, w in weights.items()}


def _write_part(step: Path, index: int, part: Part, num_ranks: int) -> None:
    pieces = {name: split(name, tensor, num_ranks) for name, tensor in part.items()}
    for rank in range(num_ranks):
        piece = {name: of_ranks[rank] for name, of_ranks in pieces.items()}
        torch.save(piece, step / layer_file(index, rank))


def _training_state(num_ranks: int) -> dict[str, Any]:
    """What DeepSpeed wants to know of a run: that it has not begun."""
    return {
        "module": None,  # its weights are in the files of the parts
        "iteration": 0,
        "global_steps": 0,
        "global_samples": 0,
        "skipped_steps": 0,
        "dp_world_size": 1,
        "mp_world_size": num_ranks,
    }


def _write_tokenizer(file: Path, model: Path, num_ids: int) -> None:
    """Tell gpt-neox, which asks a tokenizer, how many ids there are. This one cannot encode."""
    backend = GPTNeoXJapaneseTokenizer.from_pretrained(model).backend_tokenizer
    described = json.loads(backend.to_str())
    added, names = described["added_tokens"], described["model"]["vocab"]
    described["added_tokens"] = [token for token in added if token["id"] < num_ids]
    described["model"]["vocab"] = {name: i for name, i in names.items() if i < num_ids}
    file.write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8", newline="\n")


def _copy_tokenizer(source: Path, target: Path) -> None:
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _write_shards(folder: Path, tensors: Iterable[tuple[str, Tensor]]) -> int:
    """Write safetensors of at most 2 GB, so that no more than that is in memory."""
    shards: list[list[str]] = []
    pending: Part = {}
    size = written = 0

    def flush() -> None:
        save_file(pending, folder / f"part-{len(shards)}", {"format": "pt"})
        shards.append(list(pending))
        pending.clear()

    for name, tensor in tensors:
        if pending and size + tensor.nbytes > _SHARD_BYTES:
            flush()
            size = 0
        pending[name] = tensor.contiguous().clone()  # of its own memory, as safetensors wants it
        size += tensor.nbytes
        written += tensor.nbytes
    flush()
    if len(shards) == 1:
        (folder / "part-0").rename(folder / "model.safetensors")
        return written
    weight_map = {}
    for index, names in enumerate(shards):
        file = f"model-{index + 1:05}-of-{len(shards):05}.safetensors"
        (folder / f"part-{index}").rename(folder / file)
        weight_map.update(dict.fromkeys(names, file))
    listing = {"metadata": {"total_size": written}, "weight_map": weight_map}
    text = json.dumps(listing, indent=2, sort_keys=True) + "\n"
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8", newline="\n")
    return written
