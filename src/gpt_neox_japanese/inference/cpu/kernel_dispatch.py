"""Matrix products by the way the matrix is stored: which kernel of `kernels.multiply` reads it.

How a matrix is stored is told by the dtype of an empty array, so that each network is compiled for
its own formats only:

    float32   as it is
    uint16    bfloat16, as bit patterns
    int8      int8, a float32 scale for each row
    uint8     int4, two to a byte, a bfloat16 scale for each group of a row

Numbers and scales of a matrix are given by their addresses, int64 `(2,)`; floats have no scales.
"""
# What Numba chooses by types carries no annotations.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from gpt_neox_japanese.kernels.bfloat16 import matrix_at, widen
from gpt_neox_japanese.kernels.compile import Floats, Ints, Longs, Number, Shorts, overload
from gpt_neox_japanese.kernels.constants import GROUP
from gpt_neox_japanese.kernels.gemv import (
    multiply_bfloat,
    multiply_float,
    multiply_int4,
    multiply_int8,
    quantize_rows,
)

__all__ = ["Rounded", "embed", "multiply", "round_rows"]

_FLOATS = (types.float32, types.uint16)


class Rounded(NamedTuple):
    """Room for activations as integers, for each thread: what `quantize_rows` writes.

    Attributes:
        numbers: int16 `(threads, most rows * most columns)`.
        scales: float32 `(threads, most rows)`.
        corrections: int32 `(threads, most rows * most groups)`.
    """

    numbers: Shorts
    scales: Floats
    corrections: Ints


def round_rows(kind: Number, x: Floats, rounded: Rounded, me: Number) -> None:
    """Prepare activations, float32 `(rows, columns)`, for products with a matrix of this kind."""
    raise NotImplementedError


@overload(round_rows)
def _round_rows(kind, x, rounded, me):
    if kind.dtype in _FLOATS:
        return lambda kind, x, rounded, me: None

    def quantize(kind, x, rounded, me):
        rows, columns = x.shape
        numbers = matrix_at(rounded.numbers[me].ctypes.data, rows, columns, rounded.numbers)
        corrections = matrix_at(
            rounded.corrections[me].ctypes.data, rows, -(-columns // GROUP), rounded.corrections
        )
        quantize_rows(x, numbers, rounded.scales[me], corrections)

    return quantize


def multiply(
    kind: Number,
    address: Longs,
    x: Floats,
    rounded: Rounded,
    me: Number,
    out: Floats,
    first: Number,
    last: Number,
) -> None:
    """Write columns `first` to `last` of `out` = `x` times a matrix, transposed.

    Args:
        kind: How the matrix is stored.
        address: int64 `(2,)`, where it lies.
        x: float32 `(rows, columns)`.
        rounded: The same as integers, made by `round_rows`.
        me: The thread.
        out: float32 `(rows, outputs)`.
        first: First output.
        last: Output after the last.
    """
    raise NotImplementedError


@overload(multiply)
def _multiply(kind, address, x, rounded, me, out, first, last):
    if kind.dtype == types.float32:

        def floats(kind, address, x, rounded, me, out, first, last):
            matrix = matrix_at(address[0], out.shape[1], x.shape[1], kind)
            multiply_float(matrix, x, out, first, last)

        return floats
    if kind.dtype == types.uint16:

        def bfloats(kind, address, x, rounded, me, out, first, last):
            matrix = matrix_at(address[0], out.shape[1], x.shape[1], kind)
            multiply_bfloat(matrix, x, out, first, last)

        return bfloats
    if kind.dtype == types.int8:

        def int8(kind, address, x, rounded, me, out, first, last):
            rows, columns = x.shape
            matrix = matrix_at(address[0], out.shape[1], columns, kind)
            scales = matrix_at(address[1], 1, out.shape[1], rounded.scales)[0]
            numbers = matrix_at(rounded.numbers[me].ctypes.data, rows, columns, rounded.numbers)
            multiply_int8(matrix, scales, numbers, rounded.scales[me], out, first, last)

        return int8

    def int4(kind, address, x, rounded, me, out, first, last):
        rows, columns = x.shape
        groups = columns // GROUP
        packed = matrix_at(address[0], out.shape[1], columns // 2, kind)
        scales = matrix_at(address[1], out.shape[1], groups, np.empty(0, np.uint16))
        numbers = matrix_at(rounded.numbers[me].ctypes.data, rows, columns, rounded.numbers)
        corrections = matrix_at(
            rounded.corrections[me].ctypes.data, rows, groups, rounded.corrections
        )
        multiply_int4(packed, scales, numbers, rounded.scales[me], corrections, out, first, last)

    return int4


def embed(kind: Number, address: Longs, token: Number, out: Floats) -> None:
    """Write row `token` of a matrix, as float32 `(columns,)`. int4 tables are not supported."""
    raise NotImplementedError


@overload(embed)
def _embed(kind, address, token, out):
    if kind.dtype in _FLOATS:

        def floats(kind, address, token, out):
            row = matrix_at(address[0], token + 1, len(out), kind)[token]
            for i in range(len(out)):
                out[i] = widen(row[i])

        return floats

    if kind.dtype != types.int8:
        return None  # there is no such table: see `layout`

    def int8(kind, address, token, out):
        row = matrix_at(address[0], token + 1, len(out), kind)[token]
        scale = matrix_at(address[1], 1, token + 1, out)[0, token]
        for i in range(len(out)):
            out[i] = np.float32(row[i]) * scale

    return int8
