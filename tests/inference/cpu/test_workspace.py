"""Angles of the rotation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gpt_neox_japanese import GPTNeoXJapaneseConfig
from gpt_neox_japanese.inference.cpu.workspace import RotationTables
from gpt_neox_japanese.inference.loading.hparams import HParams
from gpt_neox_japanese.model.rotary import GPTNeoXJapaneseRotaryEmbedding

LENGTH = 2048


def tables_of(hparams: HParams, length: int) -> tuple[Any, Any]:
    tables = RotationTables(hparams, length)
    tables.extend(length)
    return tables.cos, tables.sin


@pytest.mark.parametrize(("head_dim", "base"), [(20, 10_000), (80, 10_000), (64, 500)])
def test_angles_are_those_of_the_model_at_every_position(head_dim: int, base: int) -> None:
    sizes = {"hidden_size": 2 * head_dim, "num_attention_heads": 2, "rotary_pct": 1.0}
    config = GPTNeoXJapaneseConfig(**sizes, rotary_emb_base=base)
    model = GPTNeoXJapaneseRotaryEmbedding(config)
    expected = model(torch.zeros(1), torch.arange(LENGTH)[None])
    tables = tables_of(HParams.from_config(sizes | {"rotary_emb_base": base}), LENGTH)
    for table, other in zip(tables, expected, strict=True):
        np.testing.assert_allclose(table, other[0, 0].numpy(), rtol=0, atol=1e-7)


def test_tables_are_rounded_once() -> None:
    exponents = torch.arange(0, 80, 2, dtype=torch.float32) / 80
    angles = np.arange(LENGTH, dtype=np.float32)[:, None] * (1 / 10_000**exponents).numpy()
    cos, sin = tables_of(HParams.from_config({"rotary_pct": 1.0}), LENGTH)
    np.testing.assert_array_equal(cos, np.cos(angles.astype(np.float64)).astype(np.float32))
    np.testing.assert_array_equal(sin, np.sin(angles.astype(np.float64)).astype(np.float32))


def test_a_table_that_grows_is_the_one_that_is_made_at_once() -> None:
    hparams = HParams.from_config({"rotary_pct": 1.0})
    grown = RotationTables(hparams, 5000)
    for end in (1, 2, 1024, 1025, 3000, 2000, 5000):
        grown.extend(end)
    for table, other in zip((grown.cos, grown.sin), tables_of(hparams, 5000), strict=True):
        np.testing.assert_array_equal(table, other)
