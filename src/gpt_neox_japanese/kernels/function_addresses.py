"""Compiled functions by their addresses, so that what few callers need is compiled when one does.

A function that calls another by its name contains it: it cannot be compiled without it.
"""
# What generates code for Numba carries no annotations: llvmlite has none.
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from typing import Any

import numba
from numba import types
from numba.core import cgutils

from gpt_neox_japanese.kernels.compile import intrinsic

__all__ = ["address_of", "call_at"]


def address_of(function: Any, *arguments: Any) -> int:
    """The address of an `entry`; it is compiled, or loaded, if it was not yet.

    Args:
        function: The entry.
        arguments: Of the types that it will be called with.

    Returns:
        An address in this process. It stays good, also in one that is forked.
    """
    kinds = tuple(map(numba.typeof, arguments))
    function.compile(kinds)
    compiled = function.overloads[kinds]
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))


@intrinsic
def call_at(typing_context, address, arguments):
    """Call an `entry` that returns nothing.

    Args:
        typing_context: Numba's.
        address: By `address_of`, int64.
        arguments: A tuple, of the very types that `address_of` was told.
    """

    def generate(context, builder, signature, values):
        address, packed = values
        kinds = tuple(signature.args[1])
        function_type = context.call_conv.get_function_type(types.none, kinds)
        function = builder.inttoptr(address, function_type.as_pointer())
        unpacked = cgutils.unpack_tuple(builder, packed)
        status, _ = context.call_conv.call_function(builder, function, types.none, kinds, unpacked)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.void(types.int64, arguments), generate
