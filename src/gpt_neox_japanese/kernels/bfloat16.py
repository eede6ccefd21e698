"""bfloat16 in compiled code, which has it as the uint16 of its bits; arrays at an address."""
# What generates code for Numba carries no annotations: llvmlite has none.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.np.arrayobj import populate_array

from gpt_neox_japanese.kernels.compile import Number, intrinsic, overload
from gpt_neox_japanese.kernels.constants import BFLOAT16_NAN

__all__ = ["bits_of", "float_of", "matrix_at", "to_float32", "to_stored"]


@intrinsic
def bits_of(typing_context, value):
    """The bits of a float32.

    Args:
        typing_context: Numba's.
        value: float32.

    Returns:
        int32.
    """

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def float_of(typing_context, bits):
    """The float32 of 32 bits.

    Args:
        typing_context: Numba's.
        bits: int32.

    Returns:
        float32.
    """

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def matrix_at(typing_context, address, rows, columns, like):
    """View memory as a matrix. Nothing is copied, and the memory must outlive the view.

    Args:
        typing_context: Numba's.
        address: Of the first number, int64.
        rows: int64.
        columns: int64.
        like: An array of the matrix's dtype.

    Returns:
        [rows, columns].
    """
    kind = types.Array(like.dtype, 2, "C")

    def generate(context, builder, signature, arguments):
        address, rows, columns, _ = arguments
        number = context.get_data_type(like.dtype)
        size = context.get_constant(types.intp, context.get_abi_sizeof(number))
        array = context.make_array(kind)(context, builder)
        populate_array(
            array,
            data=builder.inttoptr(address, number.as_pointer()),
            shape=[rows, columns],
            strides=[builder.mul(columns, size), size],
            itemsize=size,
            meminfo=None,
        )
        return array._getvalue()

    return kind(types.int64, types.int64, types.int64, like), generate


def to_float32(value: Number) -> Number:
    """A stored number as float32.

    Args:
        value: float32, or bfloat16 as uint16.

    Returns:
        float32.
    """
    raise NotImplementedError


@overload(to_float32)
def _to_float32(value):
    if value == types.uint16:
        return lambda value: float_of(np.int32(value) << np.int32(16))
    return lambda value: np.float32(value)


def to_stored(value: Number, like: Number) -> Number:
    """A float32 as it is stored, rounded to nearest even; NaN stays NaN.

    Args:
        value: float32.
        like: An array of float32, or of bfloat16 as uint16.

    Returns:
        A number of the dtype of `like`.
    """
    raise NotImplementedError


@overload(to_stored)
def _to_stored(value, like):
    if like.dtype == types.uint16:

        def round_to_bfloat(value, like):
            bits = bits_of(value)
            odd = bits >> np.int32(16) & np.int32(1)
            rounded = np.uint16((bits + np.int32(0x7FFF) + odd) >> np.int32(16))
            # What rounding carries would make infinity or 0 of NaN.
            return BFLOAT16_NAN if value != value else rounded

        return round_to_bfloat
    return lambda value, like: value
