"""Matrix products by the way the matrix is stored: which kernel of `gemv` or `gemm` reads it.

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
    compiled,
    overload,
)
from gpt_neox_japanese.kernels.constants import GROUP, MAX_FEW_ROWS
from gpt_neox_japanese.kernels.gemm import (
    gemm_bfloat16,
    gemm_float32,
    gemm_int4,
    gemm_int8,
    pack_floats,
    pack_integers,
)
from gpt_neox_japanese.kernels.gemv import (
    gemv_bfloat16,
    gemv_float32,
    gemv_int4,
    gemv_int8,
    quantize_rows,
)

__all__ = ["PreparedActivations", "embed", "multiply", "prepare_activations"]

_FLOATS = (types.float32, types.uint16)


class PreparedActivations(NamedTuple):
    """Room for activations as products need them, for each thread: as integers, and in panels.

    Attributes:
        numbers: int16 [threads, max rows * max columns].
        scales: float32 [threads, max rows].
        corrections: int32 [threads, max rows * max groups].
        panels: float32 [threads, packed size]; quantized activations are int16 in the same memory.
    """

    numbers: Shorts
    scales: Floats
    corrections: Ints
    panels: Floats


def prepare_activations(
    kind: Number, x: Floats, prepared: PreparedActivations, thread_id: Number
) -> None:
    """Prepare activations, float32 [rows, columns], for products with a matrix of this kind.

    Args:
        kind: How the matrix is stored.
        x: The activations, float32 [rows, columns].
        prepared: Where they are written as integers and in panels.
        thread_id: Whose part of it.
    """
    raise NotImplementedError


@overload(prepare_activations)
def _prepare_activations(kind, x, prepared, thread_id):
    if kind.dtype in _FLOATS:

        def pack(kind, x, prepared, thread_id):
            if len(x) > MAX_FEW_ROWS:
                pack_floats(x, prepared.panels[thread_id], 0, len(x))

        return pack

    def quantize(kind, x, prepared, thread_id):
        rows, columns = x.shape
        groups = -(-columns // GROUP)
        numbers = matrix_at(
            prepared.numbers[thread_id].ctypes.data, rows, columns, prepared.numbers
        )
        corrections = matrix_at(
            prepared.corrections[thread_id].ctypes.data, rows, groups, prepared.corrections
        )
        quantize_rows(x, numbers, prepared.scales[thread_id], corrections)
        if rows > MAX_FEW_ROWS:
            pack_integers(numbers, _integer_panels(prepared, thread_id), 0, rows)

    return quantize


@compiled
def _integer_panels(prepared: PreparedActivations, thread_id: Number) -> Shorts:
    panels = prepared.panels[thread_id]
    integers: Shorts = matrix_at(panels.ctypes.data, 1, 2 * len(panels), prepared.numbers)[0]
    return integers


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
        x: float32 [rows, columns], any number of rows.
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
        is_float = kind.dtype == types.float32
        few = gemv_float32 if is_float else gemv_bfloat16
        many = gemm_float32 if is_float else gemm_bfloat16

        def floats(kind, address, x, prepared, thread_id, out, first, last):
            matrix = matrix_at(address[0], out.shape[1], x.shape[1], kind)
            if len(x) > MAX_FEW_ROWS:
                many(matrix, prepared.panels[thread_id], out, first, last)
                return
            few(matrix, x, out, first, last)

        return floats
    if kind.dtype == types.int8:

        def int8(kind, address, x, prepared, thread_id, out, first, last):
            rows, columns = x.shape
            matrix = matrix_at(address[0], out.shape[1], columns, kind)
            scales = matrix_at(address[1], 1, out.shape[1], prepared.scales)[0]
            x_scales = prepared.scales[thread_id]
            if rows > MAX_FEW_ROWS:
                panels = _integer_panels(prepared, thread_id)
                gemm_int8(matrix, scales, panels, x_scales, out, first, last)
                return
            numbers = matrix_at(
                prepared.numbers[thread_id].ctypes.data, rows, columns, prepared.numbers
            )
            gemv_int8(matrix, scales, numbers, x_scales, out, first, last)

        return int8

    def int4(kind, address, x, prepared, thread_id, out, first, last):
        rows, columns = x.shape
        groups = columns // GROUP
        packed = matrix_at(address[0], out.shape[1], columns // 2, kind)
        scales = matrix_at(address[1], out.shape[1], groups, np.empty(0, np.uint16))
        x_scales = prepared.scales[thread_id]
        if rows > MAX_FEW_ROWS:
            panels = _integer_panels(prepared, thread_id)
            gemm_int4(packed, scales, panels, x_scales, out, first, last)
            return
        numbers = matrix_at(
            prepared.numbers[thread_id].ctypes.data, rows, columns, prepared.numbers
        )
        corrections = matrix_at(
            prepared.corrections[thread_id].ctypes.data, rows, groups, prepared.corrections
        )
        gemv_int4(packed, scales, numbers, x_scales, corrections, out, first, last)

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
