"""A model directory → one GGUF file, which llama.cpp and what is built on it run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import CheckpointError, OutputError
from gpt_neox_japanese.files import outputs
from gpt_neox_japanese.files.atomic import sync_file
from gpt_neox_japanese.files.model_directory import TOKENIZER_FILES, find_model
from gpt_neox_japanese.files.tensor_files import read_weights
from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint
from gpt_neox_japanese.inference.loading.hparams import HParams
from gpt_neox_japanese.interop.gguf_network import (
    LlamaTensor,
    check_hparams,
    never_written_row,
    read_source,
    to_llama,
)
from gpt_neox_japanese.interop.gguf_tokenizer import GGUFTokens, tokens_of
from gpt_neox_japanese.interop.gguf_types import GGUFType, import_gguf
from gpt_neox_japanese.quantization.checkpoint_tensors import check_exportable
from gpt_neox_japanese.quantization.convert import of_floats
from gpt_neox_japanese.tokenizer.codec import END_OF_TEXT

__all__ = ["FILES", "KEY", "NUM_IDS", "write_gguf"]

KEY = "gpt_neox_japanese."
"""What the keys begin with under which a file holds what llama.cpp does not read."""

NUM_IDS = f"{KEY}num_ids"
"""The key of the number of ids without extra ids."""

FILES = ("config.json", "generation_config.json", *TOKENIZER_FILES)
"""The files of a model directory that stand in a GGUF file as they are."""

# llama.cpp has rules of its own for models with certain names; for this one it has none.
_NAME = "gpt-neox-japanese"

_ENDS = ("eos", "eot", "eom")


class _Model(NamedTuple):
    """What is written."""

    checkpoint: Checkpoint
    hparams: HParams
    tensors: dict[str, NDArray[Any]]
    tokens: GGUFTokens
    kind: GGUFType


class _Head(NamedTuple):
    """How head and embedding are stored, and the row of ids never written, uint8 [1, bytes]."""

    kind: Any
    row: NDArray[np.uint8]


def write_gguf(
    model: str | Path,
    output: Path,
    *,
    kind: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write a model as a GGUF file, which appears when it is complete.

    Args:
        model: A directory or a Hub id.
        output: The file to make.
        kind: One of `TYPES`; None for that of the checkpoint, so that no number changes, and for
            bf16 of a quantised one.
        progress: Called with the number of bytes of tensors written and of all.

    Returns:
        Bytes of the file.

    Raises:
        ArgumentError: The type cannot be made here or of this model, or the package gguf is
            missing.
        CheckpointError: The model cannot be read, or llama.cpp could not run it exactly.
        OutputError: The output exists or cannot be written.
        VocabularyError: llama.cpp's tokenizer cannot be made to give the same ids.
        OSError: The disk is full or fails.
    """
    made = None if kind is None else GGUFType(kind)
    import_gguf()
    if output.exists():
        raise OutputError(f"--output {output} exists; choose another or remove it")
    outputs.check_writable(output)
    with of_floats(find_model(model)) as floats:
        parts = _read(floats, made)
        head = _head(parts)
        partial = outputs.partial_directory(output, "converted")
        with outputs.growing(partial, output, "model.gguf", is_file=True):
            file = partial / "model.gguf"
            _write(file, parts, head, progress)
            sync_file(file)
            return file.stat().st_size


def _read(model: str | Path, kind: GGUFType | None) -> _Model:
    checkpoint = Checkpoint.open(model)
    where = repr(str(checkpoint.directory))
    if len(checkpoint.stop_ids) > len(_ENDS):
        raise CheckpointError(
            f"{where} has {len(checkpoint.stop_ids)} ids that end a text; a GGUF file can name"
            f" {len(_ENDS)}"
        )
    hparams = replace(HParams.from_config(checkpoint.config), vocab_size=checkpoint.num_ids)
    check_hparams(hparams)
    if kind is not None:
        kind.check_columns({hparams.hidden_size, hparams.intermediate_size})
    codec = checkpoint.codec
    end_of_text = codec.token_to_id(END_OF_TEXT)
    tokens = tokens_of(
        codec,
        # Without one no byte of UTF-8 lacks an id, and the other bytes are in no text.
        unknown_id=codec.unknown_id or 0,
        # Other ids that end a text may be text, which a prompt may hold.
        stop_ids=[] if end_of_text is None else [end_of_text],
    )
    tensors = read_weights(checkpoint.directory)
    check_exportable(checkpoint.config, tensors, str(checkpoint.directory))
    return _Model(checkpoint, hparams, tensors, tokens, kind or GGUFType.of_weights(tensors))


def _head(model: _Model) -> _Head:
    """Give the head 16 bits where fewer would not keep extra ids from being written."""
    coarse = model.kind.of_matrix(model.hparams.hidden_size, table=True)
    sixteen = import_gguf().GGMLQuantizationType.F16
    try:
        return _Head(coarse, _row_of_extra_ids(model, coarse))
    except CheckpointError:
        if not model.kind.is_quantized:
            raise
        return _Head(sixteen, _row_of_extra_ids(model, sixteen))


def _row_of_extra_ids(model: _Model, kind: Any) -> NDArray[np.uint8]:
    wanted = {tensor.name: tensor for tensor in to_llama(model.hparams)}

    def read(name: str) -> NDArray[np.float32]:
        return read_source(model.hparams, model.tensors, wanted[name])

    def stored(row: NDArray[np.float32]) -> NDArray[np.float32]:
        return model.kind.dequantize(model.kind.quantize("output.weight", row, kind), kind)

    norm = np.stack([read("output_norm.weight"), read("output_norm.bias")])
    row = never_written_row(norm, read("output.weight"), kind=kind.name, stored=stored)
    return model.kind.quantize("output.weight", row, kind)


def _write(
    file: Path,
    model: _Model,
    head: _Head,
    progress: Callable[[int, int], None] | None,
) -> None:
    gguf = import_gguf()
    writer = gguf.GGUFWriter(file, "gptneox")
    try:
        _add_metadata(writer, model)
        tensors = to_llama(model.hparams)
        written = whole = 0
        for tensor in tensors:
            shape, kind = _layout(model, tensor, head)
            size = math.prod(shape)
            whole += size
            writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for stored in _stored(model, tensors, head):
            writer.write_tensor_data(stored)
            written += stored.nbytes
            if progress is not None:
                progress(written, whole)
    finally:
        writer.close()


def _layout(model: _Model, tensor: LlamaTensor, head: _Head) -> tuple[tuple[int, ...], Any]:
    """Shape in bytes, and type."""
    if len(tensor.shape) == 1:
        return (4 * tensor.shape[0],), import_gguf().GGMLQuantizationType.F32
    rows, columns = tensor.shape
    is_table = tensor.name in ("token_embd.weight", "output.weight")
    kind = head.kind if is_table else model.kind.of_matrix(columns)
    return model.kind.shape(rows + is_table * len(model.tokens.extra), columns, kind), kind


def _stored(model: _Model, tensors: list[LlamaTensor], head: _Head) -> Iterator[NDArray[np.uint8]]:
    for tensor in tensors:
        array = read_source(model.hparams, model.tensors, tensor)
        shape, kind = _layout(model, tensor, head)
        stored = (
            model.kind.quantize(tensor.name, array, kind)
            if array.ndim == 2
            else array.view(np.uint8)
        )
        if tensor.name == "token_embd.weight":
            stored = np.concatenate([stored, stored[model.tokens.extra]])
        elif tensor.name == "output.weight":
            stored = np.concatenate([stored, head.row.repeat(len(model.tokens.extra), axis=0)])
        assert stored.shape == shape, (tensor, stored.shape, shape)
        yield stored


def _add_metadata(writer: Any, model: _Model) -> None:
    hparams, tokens, checkpoint = model.hparams, model.tokens, model.checkpoint
    writer.add_name(_NAME)
    writer.add_quantization_version(import_gguf().GGML_QUANT_VERSION)
    writer.add_context_length(hparams.max_position_embeddings)
    writer.add_embedding_length(hparams.hidden_size)
    writer.add_block_count(hparams.num_hidden_layers)
    writer.add_feed_forward_length(hparams.intermediate_size)
    writer.add_head_count(hparams.num_attention_heads)
    writer.add_rope_dimension_count(hparams.rotary_dim)
    writer.add_rope_freq_base(hparams.rope_theta)
    writer.add_layer_norm_eps(hparams.layer_norm_eps)
    writer.add_parallel_residual(False)

    writer.add_tokenizer_model("rwkv")
    writer.add_token_list(tokens.texts)
    writer.add_token_types(list(map(int, tokens.types)))
    writer.add_token_scores([0.0] * len(tokens.texts))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    bos = checkpoint.config.get("bos_token_id")
    if isinstance(bos, int) and 0 <= bos < hparams.vocab_size:
        writer.add_bos_token_id(bos)
    # <|endoftext|>, which has the largest id, first.
    for name, token_id in zip(_ENDS, sorted(checkpoint.stop_ids, reverse=True), strict=False):
        getattr(writer, f"add_{name}_token_id")(token_id)

    writer.add_uint32(NUM_IDS, hparams.vocab_size)
    for name in FILES:
        path = checkpoint.directory / name
        if path.is_file():
            writer.add_string(KEY + name, _text(path))


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{str(path)!r} is not UTF-8; save it as UTF-8") from error
