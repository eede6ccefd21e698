from __future__ import annotations

import numpy as np
import pytest
import torch

from gpt_neox_japanese.quantization.bfloat16_arrays import bfloat16_array, float32_array

NUMBERS = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_floats_are_rounded_as_torch_rounds_them(dtype: type[np.floating]) -> None:
    numbers = np.concatenate([NUMBERS, [[0, -0.0, np.inf, -np.inf, 6e4]]]).astype(dtype)
    expected = torch.from_numpy(numbers.astype(np.float32)).bfloat16()
    assert bfloat16_array(numbers).tolist() == expected.view(torch.uint16).tolist()


def test_there_and_back_is_exact_and_what_is_so_already_is_not_copied() -> None:
    bits = bfloat16_array(NUMBERS)
    assert bfloat16_array(float32_array(bits)).tolist() == bits.tolist()
    assert np.shares_memory(bfloat16_array(bits), bits)
    assert np.shares_memory(float32_array(NUMBERS), NUMBERS)


def test_rows_that_do_not_follow_each_other_are_put_in_order() -> None:
    for convert in (bfloat16_array, float32_array):
        found = convert(NUMBERS.T)
        assert found.flags.c_contiguous
        assert found.tolist() == convert(np.ascontiguousarray(NUMBERS.T)).tolist()


def test_what_is_no_number_stays_so_whatever_its_bits() -> None:
    bits = np.array([0xFFFFFFFF, 0x7FFFFFFF, 0x7FC00000, 0x7F800001, 0xFF800001], np.uint32)
    assert np.isnan(float32_array(bfloat16_array(bits.view(np.float32)))).all()
