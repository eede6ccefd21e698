from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.inference.loading.hparams import HParams
from gpt_neox_japanese.inference.loading.weight_map import map_weights
from gpt_neox_japanese.quantization.bfloat16_arrays import bfloat16_array
from gpt_neox_japanese.quantization.formats import Matrix
from gpt_neox_japanese.quantization.quantize import quantize
from tests.inference.networks import TINY, random_model, tensors_of

MODEL = random_model()
SHAPE = HParams.from_config(MODEL.config.to_dict())
NARROW = "gpt_neox_japanese.layers.0.mlp.dense_4h_to_h.weight"
DENSE = "gpt_neox_japanese.layers.0.attention.dense.weight"


def test_unneeded_tensors_are_ignored_and_missing_ones_named() -> None:
    tensors = tensors_of(MODEL)
    tensors["gpt_neox_japanese.layers.0.attention.masked_bias"] = np.array(-1e9, np.float32)
    map_weights(SHAPE, tensors, bfloat16=False)
    del tensors["gpt_neox_japanese.layers.1.attention.dense_bias"]
    with pytest.raises(CheckpointError, match=r"layers\.1\.attention\.dense_bias is missing"):
        map_weights(SHAPE, tensors, bfloat16=False)


def test_tensor_of_another_shape_is_named() -> None:
    tensors = tensors_of(MODEL) | {"embed_out.weight": np.zeros((49, 64), np.float32)}
    with pytest.raises(CheckpointError, match=r"embed_out\.weight has shape \(49, 64\)"):
        map_weights(SHAPE, tensors, bfloat16=False)


def test_config_with_absurd_sizes_costs_nothing() -> None:
    hparams = HParams.from_config(
        TINY | {"num_hidden_layers": 2**12, "intermediate_multiple_size": 2**10}
    )
    with pytest.raises(CheckpointError, match="do not fit"):
        map_weights(hparams, tensors_of(MODEL), bfloat16=False)


def test_half_precision_is_kept_or_widened_but_never_mixed() -> None:
    halves = {name: array.astype(np.float16) for name, array in tensors_of(MODEL).items()}
    assert map_weights(SHAPE, halves, bfloat16=False).embedding.numbers.dtype == np.float32
    assert map_weights(SHAPE, halves, bfloat16=True).embedding.numbers.dtype == np.uint16
    mixed = halves | {DENSE: tensors_of(MODEL)[DENSE]}
    kinds = {matrix.numbers.dtype for matrix in map_weights(SHAPE, mixed, bfloat16=False).matrices}
    assert kinds == {np.dtype(np.float32)}


@pytest.mark.parametrize("bfloat16", [False, True])
def test_stored_bfloat16_stays_where_it_lies(bfloat16: bool) -> None:
    stored = {name: bfloat16_array(array) for name, array in tensors_of(MODEL).items()}
    places = {array.ctypes.data for array in stored.values()}
    weights = map_weights(SHAPE, stored, bfloat16=bfloat16)
    assert {matrix.numbers.ctypes.data for matrix in weights.matrices} <= places


def test_int8_without_scales_is_refused() -> None:
    tensors = tensors_of(MODEL) | {DENSE: np.zeros((64, 64), np.int8)}
    with pytest.raises(CheckpointError, match=r"dense\.weight_scale is missing"):
        map_weights(SHAPE, tensors, bfloat16=False)


def test_scales_of_another_dtype_are_refused() -> None:
    tensors = tensors_of(MODEL) | {
        DENSE: np.zeros((64, 64), np.int8),
        f"{DENSE}_scale": np.zeros(64, np.float16),
    }
    with pytest.raises(CheckpointError, match=r"dense\.weight_scale has shape \(64,\) of float16"):
        map_weights(SHAPE, tensors, bfloat16=False)


def stored(bits: Callable[[str], int]) -> dict[str, NDArray[Any]]:
    """The model's tensors, its matrices with as many bits as `bits` says of their names."""
    made: dict[str, NDArray[Any]] = {}
    for name, array in tensors_of(MODEL).items():
        made[name] = array
        if array.ndim == 2:
            matrix = quantize(array, bits(name))
            assert matrix.scales is not None
            made |= {name: matrix.numbers, f"{name}_scale": matrix.scales}
    return made


@pytest.mark.parametrize("bfloat16", [False, True])
def test_layers_of_several_kinds_become_floats(bfloat16: bool) -> None:
    mixed = stored(lambda name: 4 if "dense_4h_to_h" in name else 8)
    weights = map_weights(SHAPE, mixed, bfloat16=bfloat16)
    kinds = {matrix.format for layer in weights.layers for matrix in layer.matrices}
    assert kinds == {"bfloat16" if bfloat16 else "float32"}
    assert weights.embedding.format == "int8"
    down_proj = Matrix(mixed[NARROW], mixed[f"{NARROW}_scale"]).floats()
    np.testing.assert_allclose(weights.layers[0].down_proj.floats(), down_proj, rtol=0.005)


def test_tables_of_int4_become_floats() -> None:
    weights = map_weights(SHAPE, stored(lambda _: 4), bfloat16=False)
    assert weights.embedding.format == weights.head.format == "float32"
    assert {matrix.format for matrix in weights.layers[0].matrices} == {"int4"}


def test_a_tied_head_is_the_embedding() -> None:
    tensors = tensors_of(MODEL)
    del tensors["embed_out.weight"]
    weights = map_weights(SHAPE, tensors, bfloat16=False)
    assert weights.head is weights.embedding
    assert len(weights.matrices) == 1 + 4 * SHAPE.num_hidden_layers
