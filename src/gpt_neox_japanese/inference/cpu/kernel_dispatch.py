"""Matrix products by the way the matrix is stored: which kernel of `kernels.gemv` reads it.

How a matrix is stored is told by the dtype of an empty array, so that each network is compiled for
its own formats only:

    float32   as it is
    uint16    bfloat16, as bit patterns
    int8      int8, a float32 scale for each row
    uint8     int4, two to a byte, a bfloat16 scale for each group of a row

Numbers and scales of a matrix are given by their addresses, int64 [2]; floats have no scales.
"""
# What Numba chooses by types carries no annotations.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from gpt_neox_japanese.kernels.bfloat16 import matrix_at, to_float32
from gpt_neox_japanese.kernels.compile import Floats, Ints, Longs, Number, Shorts, overload
from gpt_neox_japanese.kernels.constants import GROUP
from gpt_neox_japanese.kernels.gemv import (
    gemv_bfloat16,
    gemv_float32,
    gemv_int4,
    gemv_int8,
    quantize_rows,
)

__all__ = ["GEMV_ROWS", "QuantizedActivations", "embed", "gemv", "quantize_activations"]

GEMV_ROWS = 8
"""Rows of activations that one call of `gemv` may have."""

_FLOATS = (types.float32, types.uint16)


class QuantizedActivations(NamedTuple):
    """Room for activations as integers, for each thread: what `quantize_rows` writes.

    Attributes:
        numbers: int16 [threads, max rows * max columns].
        scales: float32 [threads, max rows].
        corrections: int32 [threads, max rows * max groups].
    """

    numbers: Shorts
    scales: Floats
    corrections: Ints


def quantize_activations(
    kind: Number, x: Floats, quantized: QuantizedActivations, thread_id: Number
) -> None:
    """Prepare activations, float32 [rows, columns], for products with a matrix of this kind.

    Args:
        kind: How the matrix is stored.
        x: The activations, float32 [rows, columns].
        quantized: Where their integers are written.
        thread_id: Whose part of it.
    """
    raise NotImplementedError


@overload(quantize_activations)
def _quantize_activations(kind, x, quantized, thread_id):
    if kind.dtype in _FLOATS:
        return lambda kind, x, quantized, thread_id: None

    def quantize(kind, x, quantized, thread_id):
        rows, columns = x.shape
        numbers = matrix_at(
            quantized.numbers[thread_id].ctypes.data, rows, columns, quantized.numbers
        )
        corrections = matrix_at(
            quantized.corrections[thread_id].ctypes.data,
            rows,
            -(-columns // GROUP),
            quantized.corrections,
        )
        quantize_rows(x, numbers, quantized.scales[thread_id], corrections)

    return quantize


def gemv(
    kind: Number,
    address: Longs,
    x: Floats,
    quantized: QuantizedActivations,
    thread_id: Number,
    out: Floats,
    rows: tuple[Number, Number],
    first: Number,
    last: Number,
) -> None:
    """Write columns `first` to `last` of some rows of `out` = `x` times a matrix, transposed.

    Args:
        kind: How the matrix is stored.
        address: int64 [2], where it lies.
        x: float32 [rows, columns].
        quantized: The same as integers, made by `quantize_activations`.
        thread_id: The thread.
        out: float32 [rows, outputs].
        rows: The first row, and the one after the last; at most GEMV_ROWS.
        first: First output.
        last: Output after the last.
    """
    raise NotImplementedError


@overload(gemv)
def _gemv(kind, address, x, quantized, thread_id, out, rows, first, last):
    if kind.dtype == types.float32:

        def floats(kind, address, x, quantized, thread_id, out, rows, first, last):
            matrix = matrix_at(address[0], out.shape[1], x.shape[1], kind)
            begin, end = rows
            gemv_float32(matrix, x[begin:end], out[begin:end], first, last)

        return floats
    if kind.dtype == types.uint16:

        def bfloats(kind, address, x, quantized, thread_id, out, rows, first, last):
            matrix = matrix_at(address[0], out.shape[1], x.shape[1], kind)
            begin, end = rows
            gemv_bfloat16(matrix, x[begin:end], out[begin:end], first, last)

        return bfloats
    if kind.dtype == types.int8:

        def int8(kind, address, x, quantized, thread_id, out, rows, first, last):
            (begin, end), (num_rows, columns) = rows, x.shape
            matrix = matrix_at(address[0], out.shape[1], columns, kind)
            scales = matrix_at(address[1], 1, out.shape[1], quantized.scales)[0]
            numbers = matrix_at(
                quantized.numbers[thread_id].ctypes.data, num_rows, columns, quantized.numbers
            )[begin:end]
            x_scales = quantized.scales[thread_id, begin:end]
            gemv_int8(matrix, scales, numbers, x_scales, out[begin:end], first, last)

        return int8

    def int4(kind, address, x, quantized, thread_id, out, rows, first, last):
        (begin, end), (num_rows, columns) = rows, x.shape
        groups = columns // GROUP
        packed = matrix_at(address[0], out.shape[1], columns // 2, kind)
        scales = matrix_at(address[1], out.shape[1], groups, np.empty(0, np.uint16))
        numbers = matrix_at(
            quantized.numbers[thread_id].ctypes.data, num_rows, columns, quantized.numbers
        )[begin:end]
        corrections = matrix_at(
            quantized.corrections[thread_id].ctypes.data, num_rows, groups, quantized.corrections
        )[begin:end]
        x_scales = quantized.scales[thread_id, begin:end]
        gemv_int4(packed, scales, numbers, x_scales, corrections, out[begin:end], first, last)

    return int4


def embed(kind: Number, address: Longs, token: Number, out: Floats) -> None:
    """Write row `token` of a matrix, as float32 [columns]. int4 tables are not supported.

    Args:
        kind: How the matrix is stored.
        address: int64 [2], where it lies.
        token: Which row.
        out: float32 [columns].
    """
    raise NotImplementedError


@overload(embed)
def _embed(kind, address, token, out):
    if kind.dtype in _FLOATS:

        def floats(kind, address, token, out):
            row = matrix_at(address[0], token + 1, len(out), kind)[token]
            for i in range(len(out)):
                out[i] = to_float32(row[i])

        return floats

    if kind.dtype != types.int8:
        return None  # there is no such table: see `layout`

    def int8(kind, address, token, out):
        row = matrix_at(address[0], token + 1, len(out), kind)[token]
        scale = matrix_at(address[1], 1, token + 1, out)[0, token]
        for i in range(len(out)):
            out[i] = np.float32(row[i]) * scale

    return int8
