"""Calls between compiled functions that need not know each other, or pass little.

A function that Numba lets call another contains it: it cannot be compiled without it. What is at an
address is compiled when somebody needs it.

Numba passes a named tuple as all that it holds, an array in it as seven words: of two hundred words
each call is long, and LLVM, to save itself the call, copies what is called to wherever it is
called. A reference is one word, and its attributes are those of the tuple.
"""
# What generates code for Numba carries no annotations: llvmlite has none.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,override"

from __future__ import annotations

from typing import Any

import numba
from numba import types
from numba.core import cgutils
from numba.core.imputils import impl_ret_borrowed
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import lower_getattr_generic, models, register_model

from gpt_neox_japanese.kernels.compile import intrinsic

__all__ = ["address_of", "by_reference", "call_at"]


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


class _Reference(types.Type):
    """Of a named tuple."""

    def __init__(self, target: Any) -> None:
        self.target = target
        super().__init__(f"Reference({target})")


@register_model(_Reference)
class _ReferenceModel(models.OpaqueModel):
    """An address."""


@intrinsic
def by_reference(typing_context, value):
    """A reference to a named tuple, for functions that are called before this one returns.

    Args:
        typing_context: Numba's.
        value: The named tuple; it is copied.
    """

    def generate(context, builder, signature, arguments):
        place = cgutils.alloca_once_value(builder, arguments[0])
        return builder.bitcast(place, cgutils.voidptr_t)

    return _Reference(value)(value), generate


@infer_getattr
class _Attributes(AttributeTemplate):
    key = _Reference

    def generic_resolve(self, reference, name):
        target = reference.target
        return target[target.fields.index(name)] if name in target.fields else None


@lower_getattr_generic(_Reference)
def _load(context, builder, reference, address, name):
    target = reference.target
    index = target.fields.index(name)
    tuple_ = builder.bitcast(address, context.get_value_type(target).as_pointer())
    value = builder.load(cgutils.gep_inbounds(builder, tuple_, 0, index))
    return impl_ret_borrowed(context, builder, target[index], value)
