"""Matrix products by the way the matrix is stored: which kernel of `gemv` reads it.

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
from gpt_neox_japanese.kernels.compile import (
    Floats,
    Ints,
    Longs,
    Number,
    Shorts,
    overload,
    part_of_caller,
)
from gpt_neox_japanese.kernels.constants import GROUP
from gpt_neox_japanese.kernels.products.gemv import (
    gemv_bfloat16,
    gemv_float32,
    gemv_int4,
    gemv_int8,
    quantize_rows,
)

__all__ = ["PreparedActivations", "embed", "multiply", "prepare_activations"]

_gemv_float32, _gemv_bfloat16 = part_of_caller(gemv_float32), part_of_caller(gemv_bfloat16)
_gemv_int8, _gemv_int4 = part_of_caller(gemv_int8), part_of_caller(gemv_int4)
_quantize_rows = part_of_caller(quantize_rows)

_FLOATS = (types.float32, types.uint16)
_BFLOAT16 = np.empty(1, np.uint16)


class PreparedActivations(NamedTuple):
    """Room for activations as integers, for each thread.

    Attributes:
        numbers: int16 [threads, max rows * max columns].
        scales: float32 [threads, max rows].
        corrections: int32 [threads, max rows * max groups].
    """

    numbers: Shorts
    scales: Floats
    corrections: Ints


def prepare_activations(
    kind: Number, x: Floats, prepared: PreparedActivations, thread_id: Number
) -> None:
    """Prepare activations, float32 [rows, columns], for products with a matrix of this kind.

    Args:
        kind: How the matrix is stored.
        x: The activations, float32 [rows, columns].
        prepared: Where they are written as integers; floats are multiplied as they are.
        thread_id: Whose part of it.
    """
    raise NotImplementedError


@overload(prepare_activations)
def _prepare_activations(kind, x, prepared, thread_id):
    if kind.dtype in _FLOATS:
        return lambda kind, x, prepared, thread_id: None

    def quantize(kind, x, prepared, thread_id):
        rows, columns = x.shape
        groups = -(-columns // GROUP)
        numbers = matrix_at(
            prepared.numbers[thread_id].ctypes.data, rows, columns, prepared.numbers
        )
        corrections = matrix_at(
            prepared.corrections[thread_id].ctypes.data, rows, groups, prepared.corrections
        )
        _quantize_rows(x, numbers, prepared.scales[thread_id], corrections)

    return quantize


def multiply(
    kind: Number,
    address: Longs,
    x: Floats,
    prepared: PreparedActivations,
    thread_id: Number,
    out: Floats,
    first: Number,
    last: Number,
) -> None:
    """Write columns `first` to `last` of `out` = `x` times a matrix, transposed.

    Args:
        kind: How the matrix is stored.
        address: int64 [2], where it lies.
        x: float32 [rows, columns], at most MAX_FEW_ROWS rows.
        prepared: The same, made by `prepare_activations`.
        thread_id: The thread.
        out: float32 [rows, outputs].
        first: First output.
        last: Output after the last.
    """
    raise NotImplementedError


@overload(multiply)
def _multiply(kind, address, x, prepared, thread_id, out, first, last):
    if kind.dtype in _FLOATS:
        few = _gemv_float32 if kind.dtype == types.float32 else _gemv_bfloat16

        def floats(kind, address, x, prepared, thread_id, out, first, last):
            matrix = matrix_at(address[0], out.shape[1], x.shape[1], kind)
            few(matrix, x, out, first, last)

        return floats
    if kind.dtype == types.int8:

        def int8(kind, address, x, prepared, thread_id, out, first, last):
            rows, columns = x.shape
            matrix = matrix_at(address[0], out.shape[1], columns, kind)
            scales = matrix_at(address[1], 1, out.shape[1], prepared.scales)[0]
            x_scales = prepared.scales[thread_id]
            numbers = matrix_at(
                prepared.numbers[thread_id].ctypes.data, rows, columns, prepared.numbers
            )
            _gemv_int8(matrix, scales, numbers, x_scales, out, first, last)

        return int8

    def int4(kind, address, x, prepared, thread_id, out, first, last):
        rows, columns = x.shape
        groups = columns // GROUP
        packed = matrix_at(address[0], out.shape[1], columns // 2, kind)
        scales = matrix_at(address[1], out.shape[1], groups, _BFLOAT16)
        x_scales = prepared.scales[thread_id]
        numbers = matrix_at(
            prepared.numbers[thread_id].ctypes.data, rows, columns, prepared.numbers
        )
        corrections = matrix_at(
            prepared.corrections[thread_id].ctypes.data, rows, groups, prepared.corrections
        )
        _gemv_int4(packed, scales, numbers, x_scales, corrections, out, first, last)

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
        return None  # there is no such table: see `map_weights`

    def int8(kind, address, token, out):
        row = matrix_at(address[0], token + 1, len(out), kind)[token]
        scale = matrix_at(address[1], 1, token + 1, out)[0, token]
        for i in range(len(out)):
            out[i] = np.float32(row[i]) * scale

    return int8
