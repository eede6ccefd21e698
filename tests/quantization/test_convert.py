"""A converted directory: complete or absent, mapped as it lies, and made of any checkpoint."""

from __future__ import annotations

import doctest
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt_neox_japanese import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.errors import CheckpointError, OutputError, VocabularyError
from gpt_neox_japanese.files.run_records import RUN_RECORDS
from gpt_neox_japanese.files.tensor_files import read_tensors
from gpt_neox_japanese.quantization.convert import convert, of_floats
from gpt_neox_japanese.quantization.hf_modules import QuantizedEmbedding, QuantizedLinear
from tests.float_model import float_model

DENSE = "gpt_neox_japanese.layers.0.attention.dense.weight"


def source_with(path: Path, tensors: dict[str, torch.Tensor], **config: object) -> Path:
    """The package's model with more tensors, or with others of the same names."""
    shutil.copytree(float_model(), path)
    tensors = load_file(path / "model.safetensors") | tensors
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    given = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(given | config))
    return path


def test_everything_else_of_a_directory_comes_along(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    source, output = float_model(), tmp_path / "out"
    size = convert(source, output, 4, read=read_tensors, progress=lambda *n: seen.append(n))
    assert {f.name for f in output.iterdir()} == {f.name for f in source.iterdir() if f.is_file()}
    assert [f.name for f in tmp_path.iterdir()] == ["out"]
    assert size == (output / "model.safetensors").stat().st_size
    assert seen[-1][0] == seen[-1][1] < size
    config = json.loads((output / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "neox_ja"
    assert config["modules"]["gpt_neox_japanese.embed_in"] == 8
    assert config["modules"][DENSE.removesuffix(".weight")] == 4


def test_the_page_and_the_records_of_the_source_stay_there(tmp_path: Path) -> None:
    """`publish` would tell their figures and texts, train.json's command too, of another model."""
    source = source_with(tmp_path / "source", {})
    for name in ("README.md", "LICENSE", *RUN_RECORDS):
        (source / name).touch()
    convert(source, tmp_path / "out", 16, read=read_tensors)
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names & {"README.md", "LICENSE", *RUN_RECORDS} == {"LICENSE"}


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_tensors_begin_at_multiples_of_64_bytes(tmp_path: Path, bits: int) -> None:
    convert(float_model(), tmp_path / "out", bits, read=read_tensors)
    data = (tmp_path / "out" / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__")
    starts = [(8 + length + entry["data_offsets"][0]) % 64 for entry in header.values()]
    assert starts == [0] * len(starts)


def test_bf16_is_the_rounded_checkpoint_and_no_more(tmp_path: Path) -> None:
    tensors = {"a.weight": torch.randn(5, 7), "a.bias": torch.randn(3, dtype=torch.float16)}
    source = source_with(tmp_path / "source", tensors)
    convert(source, tmp_path / "out", 16, read=read_tensors)
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == load_file(source / "model.safetensors").keys()
    assert all(torch.equal(written[n], tensors[n].bfloat16()) for n in tensors)
    assert "quantization_config" not in json.loads((tmp_path / "out/config.json").read_text())


def test_matrices_without_whole_groups_get_eight_bits(tmp_path: Path) -> None:
    source = source_with(tmp_path / "source", {"a.weight": torch.randn(5, 100)})
    convert(source, tmp_path / "out", 4, read=read_tensors)
    assert load_file(tmp_path / "out" / "model.safetensors")["a.weight"].dtype == torch.int8


def test_a_tied_head_is_stored_once_and_another_head_is_kept(tmp_path: Path) -> None:
    model = load_file(float_model() / "model.safetensors")
    embedding = model["gpt_neox_japanese.embed_in.weight"]
    for tied, head in ((True, embedding.clone()), (False, embedding + 1)):
        source = source_with(
            tmp_path / f"source {tied}", {"embed_out.weight": head}, tie_word_embeddings=tied
        )
        convert(source, tmp_path / f"out {tied}", 8, read=read_tensors)
        written = load_file(tmp_path / f"out {tied}" / "model.safetensors")
        assert ("embed_out.weight" in written) is not tied


def test_computed_tables_of_old_checkpoints_are_left_out(tmp_path: Path) -> None:
    tensors = {
        "gpt_neox_japanese.layers.0.attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool),
        "gpt_neox_japanese.layers.0.attention.masked_bias": torch.tensor(-1e9),
        "gpt_neox_japanese.layers.0.attention.rotary_emb.inv_freq": torch.ones(4),
        "a.weight": torch.ones(4, 64),
    }
    convert(source_with(tmp_path / "s", tensors), tmp_path / "out", 8, read=read_tensors)
    written = load_file(tmp_path / "out/model.safetensors")
    assert {"a.weight", "a.weight_scale"} <= written.keys()
    assert not written.keys() & (tensors.keys() - {"a.weight"})


def test_a_failed_conversion_leaves_nothing(tmp_path: Path) -> None:
    weight = torch.ones(4, 64)
    weight[1, 2] = torch.nan
    source = source_with(tmp_path / "source", {"a.weight": torch.ones(4, 64), "b.weight": weight})
    with pytest.raises(CheckpointError, match=r"b\.weight.*finite"):
        convert(source, tmp_path / "out", 4, read=read_tensors)
    assert [f.name for f in tmp_path.iterdir()] == ["source"]


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(OutputError, match="not empty"):
        convert(float_model(), tmp_path / "out", 8, read=read_tensors)


def test_a_quantised_checkpoint_is_quantised_by_the_numbers_that_its_integers_stand_for(
    tmp_path: Path,
) -> None:
    convert(float_model(), tmp_path / "once", 8, read=read_tensors)
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path / "once")
    model.dequantize(torch.float32).save_pretrained(tmp_path / "floats")
    for bits in (8, 4):
        convert(tmp_path / "once", tmp_path / f"twice {bits}", bits, read=read_tensors)
        convert(tmp_path / "floats", tmp_path / f"once {bits}", bits, read=read_tensors)
        twice, once = (
            load_file(tmp_path / f"{n} {bits}/model.safetensors") for n in ("twice", "once")
        )
        assert twice.keys() == once.keys()
        assert all(torch.equal(twice[name], once[name]) for name in once)


def test_integers_that_no_configuration_explains_are_refused(tmp_path: Path) -> None:
    integers = source_with(tmp_path / "integers", {"a.weight": torch.ones(4, 64).to(torch.int8)})
    with pytest.raises(CheckpointError, match=r"a\.weight is torch\.int8"):
        convert(integers, tmp_path / "out", 4, read=read_tensors)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantised_checkpoint_becomes_floats_again(tmp_path: Path, bits: int) -> None:
    convert(float_model(), tmp_path / "once", bits, read=read_tensors)
    convert(tmp_path / "once", tmp_path / "back", 16, read=read_tensors)
    back = GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path / "back", dtype=torch.float32)
    quantised = GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path / "once")
    changed = 0
    for name, module in quantised.named_modules():
        if isinstance(module, QuantizedLinear | QuantizedEmbedding):
            weight = back.get_parameter(f"{name}.weight")
            assert torch.equal(weight, module.dequantize().bfloat16().float()), name
            changed += 1
    assert changed > 20
    plain = load_file(tmp_path / "once/model.safetensors")
    for name, tensor in load_file(tmp_path / "back/model.safetensors").items():
        assert tensor.dtype == torch.bfloat16
        if plain[name].is_floating_point():
            assert torch.equal(tensor, plain[name].bfloat16())
    assert "quantization_config" not in json.loads((tmp_path / "back/config.json").read_text())


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000])
def test_a_broken_config_is_refused(tmp_path: Path, text: str) -> None:
    source = source_with(tmp_path / "source", {"a.weight": torch.ones(4, 64)})
    (source / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        convert(source, tmp_path / "out", 8, read=read_tensors)


@pytest.mark.parametrize("kind", [CheckpointError, VocabularyError])
def test_an_error_about_the_floats_of_a_quantised_model_names_the_model(
    tmp_path: Path, kind: type[Exception]
) -> None:
    int8 = tmp_path / "int8"
    convert(float_model(), int8, bits=8, read=read_tensors)
    with (
        pytest.raises(kind, match=f"^'{re.escape(str(int8))}' is odd$"),
        of_floats(int8) as floats,
    ):
        raise kind(f"'{floats}' is odd")
    assert floats != int8
    assert not floats.exists()


def test_a_quantised_model_may_be_the_directory_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(float_model(), tmp_path / "int8", bits=8, read=read_tensors)
    (tmp_path / "int8/here").mkdir()
    monkeypatch.chdir(tmp_path / "int8/here")
    with of_floats(Path("..")) as floats:
        assert floats.name == "int8"
        assert (floats / "config.json").is_file()


def test_the_example_in_the_docstring_runs() -> None:
    failed, attempted = doctest.testmod(sys.modules[convert.__module__])
    assert not failed
    assert attempted
