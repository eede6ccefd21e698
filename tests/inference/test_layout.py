from __future__ import annotations

import numpy as np
import pytest

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.inference.layout import arrange
from gpt_neox_japanese.inference.shape import Shape
from tests.inference.networks import TINY, random_model, tensors_of

MODEL = random_model()
SHAPE = Shape.of(MODEL.config.to_dict())
DENSE = "gpt_neox_japanese.layers.0.attention.dense.weight"


def test_unneeded_tensors_are_ignored_and_missing_ones_named() -> None:
    tensors = tensors_of(MODEL)
    tensors["gpt_neox_japanese.layers.0.attention.masked_bias"] = np.array(-1e9, np.float32)
    arrange(SHAPE, tensors, bfloat16=False)
    del tensors["gpt_neox_japanese.layers.1.attention.dense_bias"]
    with pytest.raises(CheckpointError, match=r"layers\.1\.attention\.dense_bias is missing"):
        arrange(SHAPE, tensors, bfloat16=False)


def test_tensor_of_another_shape_is_named() -> None:
    tensors = tensors_of(MODEL) | {"embed_out.weight": np.zeros((49, 64), np.float32)}
    with pytest.raises(CheckpointError, match=r"embed_out\.weight has shape \(49, 64\)"):
        arrange(SHAPE, tensors, bfloat16=False)


def test_config_with_absurd_sizes_costs_nothing() -> None:
    shape = Shape.of(TINY | {"num_hidden_layers": 10**9, "intermediate_multiple_size": 10**9})
    with pytest.raises(CheckpointError, match="do not fit"):
        arrange(shape, tensors_of(MODEL), bfloat16=False)


def test_half_precision_is_kept_or_widened_but_never_mixed() -> None:
    halves = {name: array.astype(np.float16) for name, array in tensors_of(MODEL).items()}
    assert arrange(SHAPE, halves, bfloat16=False).embedding.numbers.dtype == np.float32
    assert arrange(SHAPE, halves, bfloat16=True).embedding.numbers.dtype == np.uint16
    mixed = halves | {DENSE: tensors_of(MODEL)[DENSE]}
    kinds = {matrix.numbers.dtype for matrix in arrange(SHAPE, mixed, bfloat16=False).matrices}
    assert kinds == {np.dtype(np.float32)}


def test_int8_without_scales_is_refused() -> None:
    tensors = tensors_of(MODEL) | {DENSE: np.zeros((64, 64), np.int8)}
    with pytest.raises(CheckpointError, match=r"dense\.weight_scale is missing"):
        arrange(SHAPE, tensors, bfloat16=False)


def test_a_tied_head_is_the_embedding() -> None:
    tensors = tensors_of(MODEL)
    del tensors["embed_out.weight"]
    weights = arrange(SHAPE, tensors, bfloat16=False)
    assert weights.head is weights.embedding
    assert len(weights.matrices) == 1 + 4 * SHAPE.num_hidden_layers
