"""What surrounds the matrix products, row by row: LayerNorm, RoPE, GELU, attention.

Each function does the same arithmetic in the same order for a row whatever rows there are beside
it, so a request's numbers do not depend on its neighbours; nor do they on the processor, if it can
fuse a product and a sum. The loops have no branches and no calls, so that the compiler can take
eight or sixteen channels at a time; that is why `exp` and `erf` are polynomials here.
"""

from __future__ import annotations

import math

import numpy as np

from gpt_neox_japanese.kernels.bfloat16 import float_of, matrix_at, to_float32, to_stored
from gpt_neox_japanese.kernels.compile import Floats, Longs, Number, arithmetic, entry
from gpt_neox_japanese.kernels.reductions import dot, multiply_add, total

__all__ = ["add_rows", "attend", "attend_last", "exp", "gelu", "normalize", "rotate", "store"]


def _floats(*numbers: float) -> tuple[np.float32, ...]:
    """Coefficients of a polynomial, the highest power first.

    They are written out, because computing them may give another last bit on another system.
    """
    return tuple(np.float32(number) for number in numbers)


# exp(x) = 2**n exp(r), n whole and |r| <= log(2) / 2. The polynomial is off by 2e-8 at most.
_LOG2_E = np.float32(1 / math.log(2))
_LOG_2 = np.float32(0.693359375)  # few digits: its product with n is exact
_LOG_2_REST = np.float32(math.log(2) - 0.693359375)
_EXP_MIN = np.float32(-87)
_EXP = _floats(0.0013941108, 0.008375126, 0.04166635, 0.16666415, 0.5, 1.0, 1.0)

# erf(x) = x p(t) up to |x| = 4, with t = x**2 / 8 - 1; from there on it is 1 to within 2e-8. Short
# polynomials are unrolled by the compiler, long ones are not: so p(t) = even(t**2) + t odd(t**2).
# Two coefficients are off by one rounding, so that erf(4) is 1 in these operations.
_ERF_END = np.float32(4)
# fmt: off
_ERF_EVEN = _floats(
    0.00057208707, 0.0007137557, 0.00541989, 0.014041013, 0.03315493, 0.05987173, 0.09021009,
    0.1316751, 0.35353097319602966,
)
_ERF_ODD = _floats(
    -0.0013705204, -0.001085529, -0.010073058, -0.02167232, -0.04601033, -0.07468837, -0.10771328,
    -0.17657615,
)
# fmt: on

_ROOT_HALF = np.float32(math.sqrt(0.5))
_TWICE_TANH_SCALE = np.float32(2 * math.sqrt(2 / math.pi))
_TANH_CUBE = np.float32(0.044715)
_HALF, _ONE, _EIGHTH = np.float32(0.5), np.float32(1), np.float32(0.125)


@arithmetic
def _polynomial(coefficients: tuple[np.float32, ...], t: Number) -> Number:
    value = coefficients[0]
    for index in range(1, len(coefficients)):
        value = multiply_add(value, t, coefficients[index])
    return value


@arithmetic
def exp(x: Number) -> Number:
    """The exponential function.

    Args:
        x: float32, at most 88 or NaN; below -87 it counts as -87.

    Returns:
        float32, 1.6e-38 or more; NaN for NaN.
    """
    x = _EXP_MIN if x < _EXP_MIN else x  # in this order, since nothing is true of NaN
    whole = np.floor(multiply_add(x, _LOG2_E, _HALF))
    rest = multiply_add(-whole, _LOG_2_REST, multiply_add(-whole, _LOG_2, x))
    power = float_of((np.int32(whole) + np.int32(127)) << np.int32(23))
    return _polynomial(_EXP, rest) * power


@arithmetic
def _erf(x: Number) -> Number:
    x = x if x < _ERF_END else _ERF_END
    x = x if x > -_ERF_END else -_ERF_END
    t = multiply_add(x * _EIGHTH, x, -_ONE)
    square = t * t
    even, odd = _polynomial(_ERF_EVEN, square), _polynomial(_ERF_ODD, square)
    return x * multiply_add(t, odd, even)


@arithmetic
def gelu(row: Floats, tanh: bool) -> None:
    """GELU of a row, in place.

    Args:
        row: float32 [channels].
        tanh: Use the approximation with tanh instead of the exact function.
    """
    if tanh:
        for i in range(len(row)):
            x = row[i]
            twice = _TWICE_TANH_SCALE * x * multiply_add(_TANH_CUBE, x * x, _ONE)
            # tanh(y) = 1 - 2 / (exp(2 y) + 1); beyond 40 it is 1.
            twice = twice if twice < np.float32(80) else np.float32(80)
            row[i] = x - x / (exp(twice) + _ONE)
    else:
        for i in range(len(row)):
            x = row[i]
            half = _HALF * x
            row[i] = multiply_add(half, _erf(x * _ROOT_HALF), half)


@arithmetic
def normalize(row: Floats, norm: Floats, epsilon: Number, out: Floats) -> None:
    """LayerNorm of a row.

    Args:
        row: float32 [channels].
        norm: float32 [2, channels], weight and bias.
        epsilon: float32, added to the variance.
        out: float32 [channels].
    """
    count = np.float32(len(row))
    mean = total(row) / count
    for i in range(len(row)):
        out[i] = row[i] - mean
    scale = _ONE / np.sqrt(dot(out, out) / count + epsilon)
    for i in range(len(row)):
        out[i] = multiply_add(out[i] * scale, norm[0, i], norm[1, i])


@arithmetic
def rotate(head: Floats, cos: Floats, sin: Floats) -> None:
    """RoPE: turn the pairs of channels (i, i + R / 2) of one head by the angles of its position.

    Args:
        head: float32 [head_dim], changed in place.
        cos: float32 [R / 2].
        sin: As `cos`.
    """
    half = len(cos)
    for i in range(half):
        first, second = head[i], head[i + half]
        head[i] = multiply_add(first, cos[i], -(second * sin[i]))
        head[i + half] = multiply_add(second, cos[i], first * sin[i])


@arithmetic
def attend(
    query: Floats, keys: Floats, values: Floats, length: Number, scores: Floats, out: Floats
) -> None:
    """Attention of one head: softmax of the scores, and the values mixed by it.

    A score that is NaN or +infinity makes all that is written NaN: broken weights must be seen.

    Args:
        query: float32 [head_dim].
        keys: [capacity, head_dim], float32 or bfloat16 as uint16.
        values: As `keys`.
        length: How many tokens are in the cache.
        scores: float32 [length or more], a buffer.
        out: float32 [head_dim], is written.
    """
    channels = len(query)
    scale = _ONE / np.sqrt(np.float32(channels))
    best = np.float32(-np.inf)
    for token in range(length):
        score = dot(query, keys[token]) * scale
        scores[token] = score
        best = score if score > best else best
    for token in range(length):
        scores[token] = exp(scores[token] - best)
    scale = _ONE / total(scores[:length])
    for i in range(channels):
        out[i] = np.float32(0)
    for token in range(length):
        weight = scores[token] * scale
        for i in range(channels):
            out[i] = multiply_add(weight, to_float32(values[token, i]), out[i])


@arithmetic
def add_rows(row: Floats, other: Floats) -> None:
    """Add one row onto another.

    Args:
        row: float32 [channels], changed in place.
        other: float32 [channels].
    """
    for i in range(len(row)):
        row[i] += other[i]


@arithmetic
def store(row: Floats, place: Number) -> None:
    """Write a row into the KV cache.

    Args:
        row: float32 [channels].
        place: [channels], float32 or bfloat16 as uint16.
    """
    for i in range(len(row)):
        place[i] = to_stored(row[i], place)


@entry
def attend_last(
    query: Floats,
    kind: Number,
    keys: Longs,
    values: Longs,
    length: Number,
    out: Floats,
    first: Number,
    last: Number,
) -> None:
    """Attend with some heads: one new token of each text, over a cache as torch keeps it.

    Args:
        query: float32 [heads, head_dim], of all texts.
        kind: Empty; its dtype says how the cache is stored, float32 or bfloat16 as uint16.
        keys: int64 [heads], the address of each head's [length, head_dim].
        values: As `keys`.
        length: Tokens of the cache.
        out: float32 [heads, head_dim], of which rows `first` to `last` are written.
        first: First head.
        last: Head after the last.
    """
    head_dim = query.shape[1]
    scores = np.empty(length, np.float32)
    for head in range(first, last):
        key = matrix_at(keys[head], length, head_dim, kind)
        value = matrix_at(values[head], length, head_dim, kind)
        attend(query[head], key, value, length, scores, out[head])
