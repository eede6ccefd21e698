"""What surrounds the matrix products, against NumPy in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpt_neox_japanese.inference.cpu.kernel_prefill import attend_heads, gelu_rows, normalize_rows
from gpt_neox_japanese.quantization.bfloat16_arrays import bfloat16_array, float32_array

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("tanh", [False, True])
def test_gelu_is_right_from_minus_to_plus_infinity(tanh: bool) -> None:
    x = np.linspace(-15, 15, 100_003).astype(np.float32)
    rows = np.stack([x, x])
    gelu_rows(rows, tanh)
    exact = x.astype(np.float64)
    if tanh:
        inner = math.sqrt(2 / math.pi) * (exact + 0.044715 * exact**3)
        expected = exact * (1 + np.tanh(inner)) / 2
    else:
        expected = exact * (1 + np.vectorize(math.erf)(exact / math.sqrt(2))) / 2
    np.testing.assert_allclose(rows[1], expected, rtol=1e-6, atol=1e-6)
    far = np.float32([[-1e4, 1e4, 0]])
    gelu_rows(far, tanh)
    np.testing.assert_allclose(far, [[0, 1e4, 0]], atol=1e-3)


@pytest.mark.parametrize("channels", [8, 20, 64, 2560])
def test_normalization_is_right_for_every_width(channels: int) -> None:
    hidden = RANDOM.standard_normal((3, channels)).astype(np.float32) * 5 + 2
    norm = RANDOM.standard_normal((2, channels)).astype(np.float32)
    out = np.empty_like(hidden)
    normalize_rows(hidden, norm, np.float32(1e-5), out)
    exact = hidden.astype(np.float64)
    centred = exact - exact.mean(-1, keepdims=True)
    expected = centred / np.sqrt(exact.var(-1, keepdims=True) + 1e-5) * norm[0] + norm[1]
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("head_dim", "rotated"), [(16, 16), (80, 80), (20, 8)])
def test_attention_reads_the_past_and_nothing_else(half: bool, head_dim: int, rotated: int) -> None:
    heads, tokens, position, capacity = 3, 6, 5, 40
    angles = RANDOM.uniform(0, 6, (capacity, rotated // 2)).astype(np.float32)
    qkv = RANDOM.standard_normal((tokens, heads * 3 * head_dim)).astype(np.float32)
    past = RANDOM.standard_normal((2, heads, capacity, head_dim)).astype(np.float32)
    past[:, :, position:] = np.nan  # nothing from the future may be read
    keys, values = bfloat16_array(past) if half else past
    projected = qkv.reshape(tokens, heads, 3, head_dim).astype(np.float64)
    attn_out = np.empty((tokens, heads * head_dim), np.float32)
    rows = qkv.copy()
    attend_heads(rows, np.cos(angles), np.sin(angles), keys, values, position, attn_out, 0, heads)

    stored = float32_array(
        past[:, :, :position] if not half else bfloat16_array(past[:, :, :position])
    )
    for head in range(heads):
        seen_keys, seen_values = (list(each[head].astype(np.float64)) for each in stored)
        for token in range(tokens):
            query, key, value = projected[token, head]
            cos, sin = (f(angles[position + token].astype(np.float64)) for f in (np.cos, np.sin))
            turned = [
                np.concatenate(
                    [
                        vector[: rotated // 2] * cos - vector[rotated // 2 : rotated] * sin,
                        vector[rotated // 2 : rotated] * cos + vector[: rotated // 2] * sin,
                        vector[rotated:],
                    ]
                )
                for vector in (query, key)
            ]
            seen_keys.append(turned[1])
            seen_values.append(value)
            scores = np.array(seen_keys) @ turned[0] / math.sqrt(head_dim)
            weights = np.exp(scores - scores.max())
            expected = weights / weights.sum() @ np.array(seen_values)
            got = attn_out[token, head * head_dim : (head + 1) * head_dim]
            np.testing.assert_allclose(got, expected, atol=0.03 if half else 1e-5)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("broken", [np.nan, 1e30])  # the product of two such numbers is infinite
def test_a_head_whose_scores_are_no_numbers_mixes_none(half: bool, broken: float) -> None:
    qkv = RANDOM.standard_normal((3, 2 * 3 * 8)).astype(np.float32)
    qkv[1, 24:40] = broken  # query and key of the second head, of the second token
    cache = np.zeros((2, 2, 8, 8), np.float32)
    keys, values = bfloat16_array(cache) if half else cache
    attn_out = np.empty((3, 2 * 8), np.float32)
    turns = np.float32([[1], [1], [1]]), np.zeros((3, 1), np.float32)
    attend_heads(qkv, *turns, keys, values, 0, attn_out, 0, 2)
    is_nan = np.isnan(attn_out.reshape(3, 2, 8))
    # The last token sees the key of the second: one that is only large gives it a finite score.
    expected = [[False, False], [False, True], [False, bool(np.isnan(broken))]]
    assert is_nan.all(2).tolist() == is_nan.any(2).tolist() == expected


def test_what_is_no_number_stays_so_in_a_cache_of_half_the_size() -> None:
    bits = np.array([0xFFFFFFFF, 0x7FFFFFFF, 0x7FC00000, 0x7F800001], np.uint32)
    qkv = np.zeros((1, 12), np.float32)
    qkv[0, 8:] = bits.view(np.float32)  # the value
    keys, values = np.zeros((2, 1, 1, 4), np.uint16)
    turn = np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32)
    attend_heads(qkv, *turn, keys, values, 0, np.empty((1, 4), np.float32), 0, 1)
    assert np.isnan(float32_array(values)).all()


@pytest.mark.parametrize("tanh", [False, True])
def test_rows_with_what_is_no_number_keep_it(tanh: bool) -> None:
    rows = np.float32([[1, np.nan, 2, -1, 0, 3, -2, 1, 5]])
    normed = np.empty_like(rows)
    normalize_rows(rows, np.ones((2, 9), np.float32), np.float32(1e-5), normed)
    assert np.isnan(normed).all()
    gelu_rows(rows, tanh)
    assert np.isnan(rows).tolist() == [[i == 1 for i in range(9)]]
