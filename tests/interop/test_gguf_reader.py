"""A model directory comes back from a GGUF file of ours as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gpt_neox_japanese.errors import CheckpointError, OutputError
from gpt_neox_japanese.files.tensor_files import read_tensors
from gpt_neox_japanese.interop.gguf_reader import read_gguf
from gpt_neox_japanese.interop.gguf_writer import write_gguf
from tests.float_model import float_model
from tests.interop.samples import small_codec, small_model


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model as GGUF."""
    root = tmp_path_factory.mktemp("gguf")
    write_gguf(small_model(root / "model", small_codec()), root / "model.gguf")
    return root / "model.gguf"


def assert_same_tensors(a: Path, b: Path) -> None:
    ours, back = read_tensors(a), read_tensors(b)
    assert ours.keys() == back.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == back[name].dtype
        assert torch.equal(tensor, back[name]), name


@pytest.mark.parametrize("kind", ["f32", None])
def test_the_default_model_comes_back_to_the_last_bit(tmp_path: Path, kind: str | None) -> None:
    write_gguf(float_model(), tmp_path / "model.gguf", kind=kind)
    size = read_gguf(tmp_path / "model.gguf", tmp_path / "back")
    original, back = float_model(), tmp_path / "back"
    assert size == (back / "model.safetensors").stat().st_size
    assert_same_tensors(original, back)
    assert {path.name for path in back.iterdir()} == {path.name for path in original.iterdir()}
    for path in original.iterdir():
        if path.name != "model.safetensors":
            assert (back / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("config", [{"tie_word_embeddings": False}, {"rotary_pct": 0.5}])
def test_other_models_come_back(tmp_path: Path, config: dict[str, object]) -> None:
    model = small_model(tmp_path / "model", small_codec(), **config)
    write_gguf(model, tmp_path / "model.gguf")
    read_gguf(tmp_path / "model.gguf", tmp_path / "back")
    assert_same_tensors(model, tmp_path / "back")
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == json.loads(
        (model / "config.json").read_text()
    )


def test_rows_that_only_pad_are_left_out(tmp_path: Path) -> None:
    codec = small_codec()
    model = small_model(tmp_path / "model", codec, vocab_size=codec.n_vocab + 64)
    write_gguf(model, tmp_path / "model.gguf")
    read_gguf(tmp_path / "model.gguf", tmp_path / "back")
    name = "gpt_neox_japanese.embed_in.weight"
    back = read_tensors(tmp_path / "back")[name]
    assert torch.equal(back, read_tensors(model)[name][: codec.n_vocab])
    assert (
        json.loads((tmp_path / "back" / "config.json").read_text())["vocab_size"] == codec.n_vocab
    )


def test_quantised_numbers_come_back_as_coarse_as_they_are(tmp_path: Path) -> None:
    write_gguf(float_model(), tmp_path / "model.gguf", kind="q8_0")
    read_gguf(tmp_path / "model.gguf", tmp_path / "back")
    original, back = read_tensors(float_model()), read_tensors(tmp_path / "back")
    assert original.keys() == back.keys()
    for name, tensor in original.items():
        assert back[name].dtype == torch.float32
        assert (back[name] - tensor.float()).abs().max() <= tensor.float().abs().max() / 127
    assert json.loads((tmp_path / "back" / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize("named", ["dtype", "torch_dtype"])
def test_numbers_in_32_bits_are_not_called_half_precision(tmp_path: Path, named: str) -> None:
    model = small_model(tmp_path / "model", small_codec())
    config = json.loads((model / "config.json").read_text())
    config.pop("dtype", None)
    (model / "config.json").write_text(json.dumps({**config, named: "float16"}))
    write_gguf(model, tmp_path / "model.gguf")
    read_gguf(tmp_path / "model.gguf", tmp_path / "back")
    back = json.loads((tmp_path / "back" / "config.json").read_text())
    assert {tensor.dtype for tensor in read_tensors(tmp_path / "back").values()} == {torch.float32}
    assert back["dtype"] == "float32"
    assert "torch_dtype" not in back


@pytest.mark.parametrize("vectors", [torch.bfloat16, torch.float32])
def test_bfloat16_comes_back_where_no_config_speaks_of_it(
    tmp_path: Path, vectors: torch.dtype
) -> None:
    model = shutil.copytree(float_model(), tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    del config["dtype"]
    (model / "config.json").write_text(json.dumps(config))
    tensors = {
        name: tensor if tensor.ndim == 2 else tensor.to(vectors) * 1.001
        for name, tensor in read_tensors(model).items()
    }
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    write_gguf(model, tmp_path / "model.gguf")
    read_gguf(tmp_path / "model.gguf", tmp_path / "back")
    assert_same_tensors(model, tmp_path / "back")
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == config


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "llama")
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match="not written by `neox-ja convert`"):
        read_gguf(tmp_path / "other.gguf", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.3, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_refused(file: Path, tmp_path: Path, share: float) -> None:
    data = file.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=r"cut\.gguf"):
        read_gguf(tmp_path / "cut.gguf", tmp_path / "back")
    assert [path.name for path in tmp_path.iterdir()] == ["cut.gguf"]


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_header_is_refused_or_changes_no_number(
    file: Path, tmp_path: Path, seed: int
) -> None:
    random = np.random.default_rng(seed)
    data = bytearray(file.read_bytes())
    for position in random.integers(8, 2000, size=3):
        data[position] = random.integers(256)
    (tmp_path / "damaged.gguf").write_bytes(data)
    try:
        read_gguf(tmp_path / "damaged.gguf", tmp_path / "back")
    except ValueError as error:
        assert str(error)  # noqa: PT017
    else:
        assert_same_tensors(file.parent / "model", tmp_path / "back")


def test_a_bias_that_the_architecture_lacks_is_refused(file: Path, tmp_path: Path) -> None:
    reader = gguf.GGUFReader(file)
    bias = next(t for t in reader.tensors if t.name == "blk.0.ffn_up.bias")
    data = bytearray(file.read_bytes())
    data[bias.data_offset : bias.data_offset + 4] = np.float32(1).tobytes()
    (tmp_path / "biased.gguf").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"blk\.0\.ffn_up\.bias"):
        read_gguf(tmp_path / "biased.gguf", tmp_path / "back")


@pytest.mark.parametrize(
    ("text", "other", "said"),
    [
        (b"\n<BR>\n", b"\n<XX>\n", "<BR>"),
        (b'"hidden_act": "gelu"', b'"hidden_act": "relu"', "relu"),
        (b'"hidden_size": 64', b'"hidden_size": 48', "should be"),
        (b'"emoji_inv"', b'"emoji_xxx"', "emoji_inv"),
        (b'"hidden_dropout"', rb'"hidden_\ud800x"', "Half of a surrogate pair"),
        (
            b'"max_position_embeddings": 128',
            b'"quantization_config": {"a":1}',
            "quantization_config",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    file: Path, tmp_path: Path, text: bytes, other: bytes, said: str
) -> None:
    data = file.read_bytes()
    assert data.count(text) == 1
    (tmp_path / "changed.gguf").write_bytes(data.replace(text, other))
    with pytest.raises(CheckpointError, match=said) as raised:
        read_gguf(tmp_path / "changed.gguf", tmp_path / "back")
    assert "changed.gguf" in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["changed.gguf"]


@pytest.mark.parametrize("kind", ["F64", "I8", "I32"])
def test_types_that_no_weight_has_are_refused(file: Path, tmp_path: Path, kind: str) -> None:
    name = b"blk.0.ffn_up.weight"
    data = bytearray(file.read_bytes())
    # The name, its number of dimensions, two dimensions, the type, and where the numbers begin.
    begin = data.index(name) + len(name) + 4 + 2 * 8
    data[begin : begin + 4] = np.uint32(gguf.GGMLQuantizationType[kind]).tobytes()
    (tmp_path / "other.gguf").write_bytes(data)
    with pytest.raises(CheckpointError, match=kind):
        read_gguf(tmp_path / "other.gguf", tmp_path / "back")


def test_an_output_that_is_not_empty_is_left_alone(file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        read_gguf(file, tmp_path)


def test_a_directory_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    for name in (tmp_path, tmp_path / "none.gguf"):
        with pytest.raises(CheckpointError, match=str(name)):
            read_gguf(name, tmp_path / "back")
