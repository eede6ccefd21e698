"""Converted checkpoints in transformers: loaded, used, saved; broken ones refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt_neox_japanese.errors import ArgumentError, CheckpointError
from gpt_neox_japanese.files.tensor_files import read_tensors
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.model.transformer import GPTNeoXJapaneseModel
from gpt_neox_japanese.quantization.convert import convert
from gpt_neox_japanese.quantization.frozen_product import stored_arrays
from gpt_neox_japanese.quantization.hf_modules import (
    QuantizedEmbedding,
    QuantizedLinear,
    halve_matrices,
    parameter_sizes,
)
from tests.float_model import float_model

IDS = torch.arange(10, 60)[None]


@pytest.fixture(scope="module", params=[8, 4])
def quantised(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("converted") / f"int{request.param}"
    convert(float_model(), output, request.param, read=read_tensors)
    return output


def load(directory: Path) -> GPTNeoXJapaneseForCausalLM:
    return GPTNeoXJapaneseForCausalLM.from_pretrained(directory).eval()


@torch.no_grad()
def logits(model: GPTNeoXJapaneseForCausalLM) -> torch.Tensor:
    return model(IDS).logits


def dequantised(model: GPTNeoXJapaneseForCausalLM) -> GPTNeoXJapaneseForCausalLM:
    original = GPTNeoXJapaneseForCausalLM.from_pretrained(float_model(), dtype=torch.float32).eval()
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear | QuantizedEmbedding):
            original.get_submodule(name).weight.data = module.dequantize()
    return original


def test_a_loaded_model_computes_what_its_weights_say(quantised: Path) -> None:
    model = load(quantised)
    expected, result = logits(dequantised(model)), logits(model)
    assert (result - expected).norm() < 2e-3 * expected.norm()
    head, embedding = model.embed_out, model.gpt_neox_japanese.embed_in
    assert head.weight is embedding.weight
    assert head.weight_scale is embedding.weight_scale
    assert head.bits == 8
    assert not any(p.requires_grad for m in (head, embedding) for p in m.parameters())


def test_both_ways_of_reading_int4_agree(quantised: Path) -> None:
    module = load(quantised).gpt_neox_japanese.layers[0].mlp.dense_h_to_4h
    matrix = stored_arrays(module.weight, module.weight_scale)
    assert matrix.shape == (module.out_features, module.in_features)
    assert torch.equal(torch.from_numpy(matrix.floats()), module.dequantize())


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_of_a_product_is_that_of_its_dequantised_weights(
    bits: int, dtype: torch.dtype
) -> None:
    layer = QuantizedLinear(128, 2500, bits, bias=False)  # more than one block
    torch.manual_seed(0)
    if bits == 16:
        layer.weight.data = torch.randn(2500, 128).bfloat16()
    else:
        layer.weight.data.random_(-127 if bits == 8 else 0, 128)
        layer.weight_scale.data.uniform_(0.01, 0.02)
    x = torch.randn(2, 9, 128, dtype=dtype, requires_grad=True)
    gradient = torch.randn(2, 9, 2500)
    out = layer(x)
    kept = out.grad_fn.saved_tensors if hasattr(out.grad_fn, "saved_tensors") else ()
    assert not any(each is x for each in kept)
    out.backward(gradient.to(dtype))
    exact = x.detach().float().requires_grad_()
    torch.nn.functional.linear(exact, layer.dequantize()).backward(gradient.to(dtype).float())
    tight = 1e-5 if dtype == torch.float32 else 1e-2
    assert x.grad.dtype == out.dtype == dtype
    assert (x.grad.float() - exact.grad).norm() < tight * exact.grad.norm()


def test_a_model_passes_the_gradient_of_the_dequantised_model(quantised: Path) -> None:
    model = load(quantised)
    plain = dequantised(model)
    embedded = model.get_input_embeddings()(IDS)
    gradients = []
    for each in (model, plain):
        x = embedded.detach().requires_grad_()
        each(inputs_embeds=x, labels=IDS).loss.backward()
        gradients.append(x.grad)
    # Activations of the forward pass were rounded to 12 bits.
    assert (gradients[0] - gradients[1]).norm() < 1e-2 * gradients[1].norm()


def test_a_dequantised_model_is_one_of_floats(quantised: Path) -> None:
    model = load(quantised)
    expected = logits(dequantised(model))
    floats = model.dequantize()
    assert not any(isinstance(m, QuantizedLinear | QuantizedEmbedding) for m in floats.modules())
    assert floats.embed_out.weight is floats.gpt_neox_japanese.embed_in.weight
    assert torch.equal(logits(floats), expected)
    assert not hasattr(floats.config, "quantization_config")


def test_halved_matrices_multiply_as_they_are_rounded() -> None:
    source = float_model()
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    parameters = sum(p.numel() for p in model.parameters())
    rounded = GPTNeoXJapaneseForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    for parameter in rounded.parameters():
        if parameter.ndim == 2:
            parameter.data = parameter.data.bfloat16().float()
    halve_matrices(model)
    assert {p.dtype for p in model.parameters() if p.ndim == 2} == {torch.bfloat16}
    assert model.embed_out.weight is model.gpt_neox_japanese.embed_in.weight
    torch.testing.assert_close(logits(model), logits(rounded), atol=1e-3, rtol=1e-3)
    assert sum(size for _, size in parameter_sizes(model)) == parameters


def test_weights_are_counted_however_they_are_stored(quantised: Path) -> None:
    model = load(quantised)
    expected = sum(p.numel() for p in dequantised(model).parameters())
    assert sum(size for _, size in parameter_sizes(model)) == expected


def test_a_dtype_does_not_change_what_is_stored(quantised: Path) -> None:
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(quantised, dtype=torch.float16)
    assert torch.equal(logits(model.eval()), logits(load(quantised)))


def test_saving_keeps_every_tensor(quantised: Path, tmp_path: Path) -> None:
    model = load(quantised)
    model.save_pretrained(tmp_path)
    before, after = (load_file(d / "model.safetensors") for d in (quantised, tmp_path))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(logits(load(tmp_path)), logits(model))


@torch.no_grad()
def test_a_model_without_its_head_is_loaded_of_one_with_a_head_and_the_reverse(
    quantised: Path, tmp_path: Path
) -> None:
    whole, floats, base = load(quantised), tmp_path / "floats", tmp_path / "base"
    GPTNeoXJapaneseModel.from_pretrained(float_model()).save_pretrained(floats)
    convert(floats, base, int(quantised.name[-1]), read=read_tensors)
    assert torch.equal(logits(load(base)), logits(whole))
    load(base).save_pretrained(tmp_path / "with head")
    assert torch.equal(logits(load(tmp_path / "with head")), logits(whole))
    expected = whole.gpt_neox_japanese(IDS).last_hidden_state
    for directory in (base, quantised):
        model = GPTNeoXJapaneseModel.from_pretrained(directory).eval()
        assert torch.equal(model(IDS).last_hidden_state, expected)
    model.save_pretrained(tmp_path / "without head")
    assert torch.equal(logits(load(tmp_path / "without head")), logits(whole))


def test_the_first_layers_are_loaded_alone(quantised: Path) -> None:
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(quantised, num_hidden_layers=1).eval()
    assert len(model.gpt_neox_japanese.layers) == 1
    assert logits(model).isfinite().all()


def test_the_part_below_the_head_is_saved_and_loaded(quantised: Path, tmp_path: Path) -> None:
    model = load(quantised)
    model.gpt_neox_japanese.save_pretrained(tmp_path)
    assert torch.equal(logits(load(tmp_path)), logits(model))


def test_a_module_that_no_model_has_is_refused(quantised: Path, tmp_path: Path) -> None:
    modules = json.loads((quantised / "config.json").read_text())["quantization_config"]["modules"]
    name = "gpt_neox_japanese.layers.0.attention.other"
    load(changed(quantised, tmp_path, modules={**modules, "other_head.0": 8}))
    with pytest.raises(CheckpointError, match=rf"names '{name}', which .* does not have"):
        load(changed(quantised, tmp_path, modules={**modules, name: 8}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_quantised_model_is_moved_but_not_cast(quantised: Path, dtype: torch.dtype) -> None:
    model = load(quantised)
    before = logits(model)
    with pytest.raises(ArgumentError, match=rf"cannot be cast to {dtype}; call its dequantize"):
        model.to(dtype)
    assert torch.equal(logits(model.to("cpu", torch.float32)), before)
    model.dequantize()
    assert model.to(dtype)(IDS).logits.dtype == dtype


def test_what_peft_casts_computes_and_is_saved_as_before(quantised: Path, tmp_path: Path) -> None:
    prepare = pytest.importorskip("peft").prepare_model_for_kbit_training
    model = load(quantised)
    before = logits(model)
    model = prepare(model)
    assert torch.equal(logits(model), before)
    prepare(model).save_pretrained(tmp_path)
    stored, saved = (load_file(d / "model.safetensors") for d in (quantised, tmp_path))
    assert all(torch.equal(stored[name], saved[name]) for name in stored)
    assert all(stored[name].dtype == saved[name].dtype for name in stored)


@pytest.mark.parametrize("bits", [8, 4])
def test_scales_that_were_rounded_are_refused(bits: int) -> None:
    layer = QuantizedLinear(128, 2, bits, bias=False)
    layer.weight_scale.data = layer.weight_scale.data.half()
    with pytest.raises(ArgumentError, match=r"was cast from torch\..* to torch.float16; load the"):
        layer(torch.ones(1, 128))


def test_it_writes_text(quantised: Path) -> None:
    model = load(quantised)
    ids = model.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=3)
    assert ids.shape == (1, IDS.shape[1] + 3)


def changed(source: Path, target: Path, **changes: object) -> Path:
    shutil.copytree(source, target, dirs_exist_ok=True)
    config = json.loads((target / "config.json").read_text())
    config["quantization_config"] |= changes
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bits": 3}, "bits 3"),
        ({"bits": "8"}, "bits '8'"),
        ({"group_size": 0}, "group_size 0"),
        ({"group_size": 10**30}, "group_size 1000"),
        ({"modules": None}, "modules must"),
        ({"modules": {"gpt_neox_japanese.layers.0": 8}}, "bits, but quantization_config"),
        ({"modules": {"embed_out": "eight"}}, "modules must"),
    ],
)
def test_an_absurd_description_is_refused(
    quantised: Path, tmp_path: Path, changes: Any, said: str
) -> None:
    with pytest.raises(CheckpointError, match=said):
        load(changed(quantised, tmp_path, **changes))


def test_a_truncated_file_is_refused(quantised: Path, tmp_path: Path) -> None:
    directory = changed(quantised, tmp_path)
    os.truncate(directory / "model.safetensors", 1_000_000)
    with pytest.raises(CheckpointError):
        load(directory)
    with pytest.raises(CheckpointError):
        read_tensors(directory)


@pytest.mark.parametrize("change", ["rows", "shape", "dtype", "scale"])
def test_tensors_that_are_not_what_was_described_are_refused(
    quantised: Path, tmp_path: Path, change: str
) -> None:
    directory = changed(quantised, tmp_path)
    tensors = load_file(directory / "model.safetensors")
    name = "gpt_neox_japanese.layers.0.attention.dense.weight"
    if change == "scale":
        tensors[f"{name}_scale"] = tensors[f"{name}_scale"].to(torch.float64)
    elif change == "dtype":
        tensors[name] = tensors[name].float()
    else:
        tensors[name] = tensors[name][:10] if change == "rows" else tensors[name].reshape(-1)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=name):
        load(directory)
