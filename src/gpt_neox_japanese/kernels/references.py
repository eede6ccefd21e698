"""Named tuples that compiled functions pass on by reference.

Numba passes a named tuple as all that it holds, an array in it as seven words: of two hundred words
each call is long, and LLVM, to save itself the call, copies what is called to wherever it is
called. A reference is one word, and its attributes are those of the tuple.
"""
# What generates code for Numba carries no annotations: llvmlite has none.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,override"

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.core.imputils import impl_ret_borrowed
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import lower_getattr_generic, models, register_model

from gpt_neox_japanese.kernels.compile import intrinsic

__all__ = ["by_reference"]


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
