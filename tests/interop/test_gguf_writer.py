"""A GGUF file is complete and exact, or it is not there."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt_neox_japanese.errors import ArgumentError, CheckpointError, OutputError
from gpt_neox_japanese.interop import gguf_types, gguf_writer
from gpt_neox_japanese.interop.gguf_writer import write_gguf
from tests.interop.samples import small_codec, small_model, with_config

WEIGHTS = "model.safetensors"
BEYOND_FLOAT32 = torch.full((64, 64), 1e300, dtype=torch.float64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("small") / "model", small_codec())


def change_tensors(directory: Path, **tensors: torch.Tensor | None) -> None:
    """Replace tensors by the ends of their names; None removes them."""
    kept = load_file(directory / WEIGHTS)
    for end, tensor in tensors.items():
        name = next((n for n in kept if n.endswith(end)), end)
        kept.pop(name, None)
        if tensor is not None:
            kept[name] = tensor
    save_file(kept, directory / WEIGHTS, {"format": "pt"})


def read(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    reader = gguf.GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return fields, {tensor.name: tensor for tensor in reader.tensors}


def test_the_file_says_what_llama_cpp_reads(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    file = tmp_path / "model.gguf"
    size = write_gguf("default", file, progress=lambda *n: seen.append(n))
    assert size == file.stat().st_size
    assert seen[-1][0] == seen[-1][1] < size
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
    fields, tensors = read(file)
    assert fields["general.architecture"] == "gptneox"
    assert fields["gptneox.block_count"] == 8
    assert fields["gptneox.rope.dimension_count"] == 64
    assert fields["gptneox.use_parallel_residual"] is False
    assert fields["tokenizer.ggml.model"] == "rwkv"
    assert fields["tokenizer.ggml.eos_token_id"] == 7999
    rows = len(fields["tokenizer.ggml.tokens"])
    assert rows == len(fields["tokenizer.ggml.token_type"]) > fields[gguf_writer.NUM_IDS] == 8000
    assert len(tensors) == 4 + 8 * 12
    for table in ("token_embd.weight", "output.weight"):
        assert tensors[table].shape.tolist() == [512, rows]
        assert tensors[table].tensor_type.name == "BF16"  # as the checkpoint is
    assert tensors["blk.0.attn_norm.weight"].tensor_type.name == "F32"


def test_text_that_ends_a_text_stays_text(tmp_path: Path) -> None:
    codec = small_codec()
    text = next(i for i in range(len(codec)) if codec.encode(codec.decode([i])) == [i])
    directory = small_model(tmp_path / "model", codec)
    (directory / "generation_config.json").unlink()
    write_gguf(
        with_config(directory, eos_token_id=[codec.eot_token, text]), tmp_path / "model.gguf"
    )
    fields, _ = read(tmp_path / "model.gguf")
    assert fields["tokenizer.ggml.eos_token_id"] == codec.eot_token
    assert fields["tokenizer.ggml.eot_token_id"] == text
    kinds = fields["tokenizer.ggml.token_type"]
    assert kinds[text] == gguf.TokenType.NORMAL
    assert kinds[codec.eot_token] == gguf.TokenType.CONTROL


def test_extra_ids_have_an_embedding_and_are_never_written(model: Path, tmp_path: Path) -> None:
    write_gguf(model, tmp_path / "model.gguf", kind="f32")
    _, tensors = read(tmp_path / "model.gguf")
    tokens = gguf_writer._read(model, None).tokens
    embedding, head = (tensors[name].data for name in ("token_embd.weight", "output.weight"))
    size = len(embedding) - len(tokens.extra)
    assert (embedding[size:] == embedding[tokens.extra]).all()
    # Whatever the text, what the head sees is a vector of mean 0, scaled and shifted by the norm.
    x = np.random.default_rng(0).standard_normal((1000, 64))
    x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    seen = x * tensors["output_norm.weight"].data + tensors["output_norm.bias"].data
    scores = seen.astype(np.float32) @ head.T
    assert (scores[:, size:].max(-1) < scores[:, :size].max(-1) - 100).all()


def test_tables_in_which_8_bits_would_not_keep_extra_ids_away_have_16(tmp_path: Path) -> None:
    """The final norm of the model in the package is too uneven for 8."""
    write_gguf("default", tmp_path / "model.gguf", kind="q8_0")
    _, tensors = read(tmp_path / "model.gguf")
    kinds = {name: tensor.tensor_type.name for name, tensor in tensors.items()}
    assert kinds["token_embd.weight"] == kinds["output.weight"] == "F16"
    assert kinds["blk.0.ffn_up.weight"] == "Q8_0"


@pytest.mark.parametrize("kind", gguf_types.TYPES)
def test_every_type_is_as_near_as_its_bits_allow(model: Path, tmp_path: Path, kind: str) -> None:
    if kind in ("q6_k", "q5_k", "q4_k", "q3_k", "q2_k", "iq4_nl", "iq4_xs"):
        pytest.importorskip("xllamacpp", reason="needs llama.cpp's quantiser, xllamacpp")
    made = gguf_types.GGUFType(kind)
    library_type = made.of_matrix(512)
    assert library_type.name.lower() == kind
    matrix = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
    stored = made.quantize("a matrix", matrix, library_type)
    error = np.abs(made.dequantize(stored, library_type) - matrix).mean()
    bits = {"f32": 24, "f16": 11, "bf16": 8}.get(kind, 8 * stored.nbytes / matrix.size)
    assert error <= 2.0 ** (2 - bits)
    assert made.of_matrix(48).name in ("F16", kind.upper())
    assert made.of_matrix(512, table=True).name in ("Q8_0", kind.upper())


def test_a_type_that_no_matrix_would_have_is_refused_with_those_that_fit(tmp_path: Path) -> None:
    sizes = {"hidden_size": 60, "num_attention_heads": 5}
    model = small_model(tmp_path / "model", small_codec(), **sizes, intermediate_multiple_size=3)
    with pytest.raises(ArgumentError, match=r"blocks of 32 .* choose one of f32, f16, bf16$"):
        write_gguf(model, tmp_path / "model.gguf", kind="q8_0")
    model = small_model(tmp_path / "wide", small_codec(), **sizes, intermediate_multiple_size=8)
    write_gguf(model, tmp_path / "model.gguf", kind="q8_0")
    _, tensors = read(tmp_path / "model.gguf")
    assert tensors["blk.0.ffn_down.weight"].tensor_type.name == "Q8_0"
    assert tensors["blk.0.ffn_up.weight"].tensor_type.name == "F16"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_act": "relu"}, "relu"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "linear"),
        ({"num_hidden_layers": 513}, "num_hidden_layers"),
        ({"quantization_config": {"quant_method": "neox_ja"}}, "quantization_config"),
        ({"num_attention_heads": 3}, "heads"),
    ],
)
def test_what_llama_cpp_cannot_run_is_refused_by_name(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    directory = with_config(small_model(tmp_path / "model", small_codec()), **changes)
    with pytest.raises(CheckpointError, match=said):
        write_gguf(directory, tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("end", "tensor", "said"),
    [
        ("layers.0.attention.dense.weight", None, "attention.dense.weight"),
        ("layers.0.attention.dense.weight", torch.zeros(64, 65), "attention.dense.weight"),
        ("layers.0.attention.dense.bias", torch.zeros(64), "no tensor of this architecture"),
        ("final_layer_norm.bias", torch.zeros(64), "sum of bias / weight is 0"),
        ("final_layer_norm.weight", torch.zeros(64), "sum of bias / weight is"),
        ("final_layer_norm.weight", torch.full((64,), torch.nan), "not finite"),
        ("0.attention.dense.weight", BEYOND_FLOAT32, "not finite in float32"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, end: str, tensor: torch.Tensor | None, said: str
) -> None:
    directory = small_model(tmp_path / "model", small_codec())
    change_tensors(directory, **{end: tensor})
    with pytest.raises(CheckpointError, match=said):
        write_gguf(directory, tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("kind", "number", "said"),
    [
        ("f16", 7e4, "number of f16; choose bf16 or f32"),
        ("bf16", 3.4e38, "number of bf16; choose f32"),
    ],
)
def test_numbers_beyond_16_bits_are_refused(
    tmp_path: Path, kind: str, number: float, said: str
) -> None:
    directory = small_model(tmp_path / "model", small_codec())
    change_tensors(directory, **{"layers.0.attention.dense.weight": torch.full((64, 64), number)})
    bias = torch.ones(64)  # which a row that is never written needs
    change_tensors(directory, **{"final_layer_norm.bias": bias})
    with pytest.raises(CheckpointError, match=said):
        write_gguf(directory, tmp_path / "model.gguf", kind=kind)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_unusable_row_names_the_way_out(tmp_path: Path) -> None:
    directory = small_model(tmp_path / "model", small_codec())
    weight = torch.ones(64)
    weight[0] = 1e-3  # of a block of 32 numbers it leaves nothing to the others
    change_tensors(
        directory,
        **{"final_layer_norm.weight": weight, "final_layer_norm.bias": torch.full((64,), 1e-2)},
    )
    with pytest.raises(CheckpointError, match=r"choose .*f32"):
        write_gguf(directory, tmp_path / "model.gguf", kind="q8_0")


def test_a_template_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    directory = small_model(tmp_path / "model", small_codec())
    (directory / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja"):
        write_gguf(directory, tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_output_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        write_gguf("default", tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_text() == "mine"


def test_a_disk_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", fail)
    with pytest.raises(OSError, match="No space"):
        write_gguf("default", tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "kind", "said"),
    [("gguf", None, r"gpt-neox-japanese\[gguf\]"), ("xllamacpp", "q4_k", "f32, f16, bf16, q8_0")],
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, kind: str | None, said: str
) -> None:
    original = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name == package:
            raise ImportError(name)
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ArgumentError, match=said):
        write_gguf("default", tmp_path / "model.gguf", kind=kind)
