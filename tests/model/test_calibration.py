"""A checkpoint that is quantised by a text is nearer to its source than one that is not."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from gpt_neox_japanese import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.errors import ArgumentError, CheckpointError
from gpt_neox_japanese.files.tensor_files import read_tensors
from gpt_neox_japanese.model.calibration import LayerwiseCalibration
from gpt_neox_japanese.quantization.convert import convert
from tests.float_model import float_model
from tests.inference.networks import random_model

TOKENS = 128


@cache
def windows() -> NDArray[np.int64]:
    """What the model in the package writes; int64 [27, 128]."""
    torch.manual_seed(0)
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(float_model())
    prompts = torch.full((27, 1), model.config.eos_token_id)
    written = model.generate(
        prompts, do_sample=True, top_k=0, max_new_tokens=TOKENS - 1, min_new_tokens=TOKENS - 1
    )
    return np.asarray(written)


def quantized(source: Path, output: Path, ids: NDArray[np.int64] | None) -> Path:
    """`source` in int4; by a text, if there is one."""
    calibrate = None if ids is None else lambda *given: LayerwiseCalibration(*given, ids)
    convert(source, output, 4, read=read_tensors, calibrate=calibrate)
    return output


def divergence(source: Path, other: Path, ids: NDArray[np.int64]) -> float:
    """Bits a token, by the model classes."""
    with torch.inference_mode():
        expected, found = (
            GPTNeoXJapaneseForCausalLM.from_pretrained(model, dtype=torch.float32)(
                torch.from_numpy(ids)
            ).logits.log_softmax(-1)
            for model in (source, other)
        )
        nats = (expected.exp() * (expected - found)).sum(-1).mean()
    return float(nats) / math.log(2)


def recorded(model: Path) -> dict[str, float]:
    """What config.json says of the calibration."""
    config = json.loads((model / "config.json").read_text())
    result: dict[str, float] = config["quantization_config"]["calibration"]
    return result


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in the package, by all but the last nine windows."""
    output = tmp_path_factory.mktemp("calibrated") / "int4"
    return quantized(float_model(), output, windows()[:18])


def test_it_loses_less_than_half_on_text_that_it_has_not_seen(
    tmp_path: Path, calibrated: Path
) -> None:
    source, unseen = float_model(), windows()[18:]
    alone = quantized(source, tmp_path / "alone", None)
    assert divergence(source, calibrated, unseen) < 0.5 * divergence(source, alone, unseen)
    sizes = [(model / "model.safetensors").stat().st_size for model in (alone, calibrated)]
    assert sizes[0] == sizes[1]


def test_what_it_says_of_itself_is_what_the_model_classes_measure(calibrated: Path) -> None:
    said = recorded(calibrated)
    assert said["tokens"] == 18 * TOKENS
    measured = divergence(float_model(), calibrated, windows()[16:18])
    assert said["divergence_bits"] == pytest.approx(measured, rel=0.02)


def test_the_same_text_gives_the_same_bytes(tmp_path: Path, calibrated: Path) -> None:
    again = quantized(float_model(), tmp_path / "again", windows()[:18])
    for file in ("model.safetensors", "config.json"):
        assert (again / file).read_bytes() == (calibrated / file).read_bytes()


def test_a_model_that_is_saved_again_keeps_what_is_said_of_it(
    tmp_path: Path, calibrated: Path
) -> None:
    GPTNeoXJapaneseForCausalLM.from_pretrained(calibrated).save_pretrained(tmp_path / "saved")
    assert recorded(tmp_path / "saved") == recorded(calibrated)


@pytest.mark.parametrize(
    "changes",
    [
        {"tie_word_embeddings": False},
        {"hidden_size": 80},  # only the MLP's 320 channels make whole groups
        {"num_hidden_layers": 11, "hidden_size": 64},  # "layers.10" comes before "layers.2"
        {"rotary_pct": 0.5, "hidden_act": "gelu_new"},
    ],
)
def test_models_of_any_shape_are_quantised(tmp_path: Path, changes: dict[str, object]) -> None:
    model = random_model(**changes)
    source = tmp_path / "source"
    model.save_pretrained(source)
    ids = np.random.default_rng(0).integers(0, 50, (18, 64))
    output = quantized(source, tmp_path / "int4", ids)
    measured = divergence(source, output, ids[-2:])
    assert recorded(output)["divergence_bits"] == pytest.approx(measured, rel=0.05)


def test_a_bare_transformer_is_quantised(tmp_path: Path) -> None:
    model, source = random_model(), tmp_path / "source"
    model.save_pretrained(source)
    tensors = load_file(source / "model.safetensors")
    bare = {n.removeprefix("gpt_neox_japanese."): t for n, t in tensors.items()}
    save_file(bare, source / "model.safetensors", {"format": "pt"})
    ids = np.random.default_rng(0).integers(0, 50, (9, 64))
    assert recorded(quantized(source, tmp_path / "int4", ids))["divergence_bits"] > 0


def test_activations_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    model, source = random_model(), tmp_path / "source"
    with torch.no_grad():
        model.gpt_neox_japanese.layers[1].input_layernorm.weight.fill_(3e38)
    model.save_pretrained(source)
    ids = np.random.default_rng(0).integers(0, 50, (9, 64))
    with pytest.raises(CheckpointError, match=r"layers\.1\.attention.*calibration text"):
        quantized(source, tmp_path / "int4", ids)
    assert not (tmp_path / "int4").exists()


def test_other_bits_than_four_take_no_calibration(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="for 4 bits"):
        convert(
            float_model(),
            tmp_path / "out",
            8,
            read=read_tensors,
            calibrate=lambda *given: LayerwiseCalibration(*given, windows()),
        )


@pytest.mark.parametrize(
    ("shape", "token_id", "said"),
    [
        ((1, 64), 0, "shape"),
        ((64,), 0, "shape"),
        ((9, 0), 0, "shape"),
        ((9, 64), 50, "those below 50"),
        ((9, 64), -1, "those below 50"),
    ],
)
def test_windows_that_no_model_can_read_are_refused(
    tmp_path: Path, shape: tuple[int, ...], token_id: int, said: str
) -> None:
    random_model().save_pretrained(tmp_path / "source")
    with pytest.raises(ArgumentError, match=said):
        quantized(tmp_path / "source", tmp_path / "int4", np.full(shape, token_id, np.int64))
