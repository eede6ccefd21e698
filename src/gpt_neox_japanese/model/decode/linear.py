"""Linear layers on CPUs without AVX-512, and linear layers with few rows on every CPU.

Without AVX-512 torch multiplies bfloat16 and float16 matrices number by number, five times slower
than float32 ones. Here they are multiplied in float32, by blocks of the weight small enough to stay
in the processor's caches, so that no second copy of a weight is ever in memory. Sums in float32 are
also more exact. float32 weights gain by blocks too: the BLAS is faster with them than with the
whole. The few rows of a decode step go to the GEMV kernels, see `cpu_kernels`.

The layers stay plain `nn.Linear`: quantisers and adapters look for that exact type, and put other
modules in its place. `linear` applies either.
"""
# Methods of transformers and torch carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from gpt_neox_japanese.model.decode import cpu_kernels
from gpt_neox_japanese.quantization.torch_matmul import is_compiling_or_tracing, is_tracing

__all__ = [
    "grad_of_states",
    "grad_of_weight",
    "half_is_slow",
    "is_plain_linear",
    "linear",
    "multiply",
    "sdpa",
]

# Rows of a weight multiplied at a time. What is converted is at most 10 MB in the 2.7B model: so
# little memory the allocator uses again, more comes fresh from the system each time.
_HALF_BLOCK_ROWS, _BLOCK_ROWS = 256, 1024
# For so few rows the weights take longer to read than to multiply, and torch reads float32 well.
_MAX_ROWS_FOR_TORCH = 2
_WITHOUT_AVX512 = torch.backends.cpu.get_cpu_capability() == "AVX2"


def half_is_slow(states: Tensor, dtype: torch.dtype) -> bool:
    """Whether matrices of `dtype` are better multiplied in float32 where `states` are.

    Args:
        states: Any shape; only its device counts.
        dtype: Of the matrices.

    Returns:
        True for float16 and bfloat16 on a CPU without AVX-512.
    """
    half = dtype in (torch.bfloat16, torch.float16)
    return half and states.device.type == "cpu" and _WITHOUT_AVX512


def _use_blocks(states: Tensor, dtype: torch.dtype) -> bool:
    if dtype == torch.float32 and not torch.is_grad_enabled():
        return states.device.type == "cpu" and _WITHOUT_AVX512 and not is_compiling_or_tracing()
    # A compiler follows the autograd function, and makes good code of it; a tracer does neither.
    return half_is_slow(states, dtype) and not is_tracing()


def linear(layer: nn.Module, states: Tensor) -> Tensor:
    """Apply a linear layer, or what a tool has put in its place, with the products of this module.

    Args:
        layer: An `nn.Linear`; or a module around one, such as an adapter.
        states: [..., in], any floating dtype.

    Returns:
        [..., out] in the dtype that torch would give.
    """
    product: Tensor
    if is_tracing() or states.device.type != "cpu":
        product = layer(states)
    elif is_plain_linear(layer):
        product = multiply(states, layer.weight)
    else:
        with _RedirectLinear():
            product = layer(states)
    return product


def is_plain_linear(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether calling `layer` multiplies by its weight and does nothing else.

    Args:
        layer: Any module.

    Returns:
        True for an `nn.Linear` without a bias, hooks, or a `forward` that was replaced or compiled.
    """
    return (
        type(layer) is nn.Linear
        and layer.bias is None
        and layer._compiled_call_impl is None
        and "forward" not in vars(layer)  # where accelerate puts its own
        and not (layer._forward_pre_hooks or layer._forward_hooks)
        and not (layer._backward_pre_hooks or layer._backward_hooks)
    )


class _RedirectLinear(TorchFunctionMode):
    """While it is entered, `nn.functional.linear` without a bias is `multiply`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        # The arguments as `nn.Linear` passes them. Within this method, the mode is not entered.
        if func is nn.functional.linear and len(args) == 3 and args[2] is None and not kwargs:
            return multiply(*args[:2])
        return func(*args, **(kwargs or {}))


def multiply(states: Tensor, weight: Tensor) -> Tensor:
    """Multiply by a transposed weight, as `nn.functional.linear` does.

    Args:
        states: [..., in], any floating dtype.
        weight: [out, in].

    Returns:
        [..., out] in the dtype that torch would give.
    """
    if cpu_kernels.can_use_gemv(states, weight):
        return cpu_kernels.gemv(states, weight)
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else weight.dtype
    if (
        type(weight) is not nn.Parameter  # quantised or split over processes
        or states.numel() <= _MAX_ROWS_FOR_TORCH * weight.shape[1]
        or not _use_blocks(states, dtype)
        or not (autocast or states.dtype == dtype)
    ):
        return nn.functional.linear(states, weight)
    with torch.autocast("cpu", enabled=False):
        rows = states.to(dtype).reshape(-1, weight.shape[1])
        product: Tensor = _BlockedLinear.apply(rows, weight)
    return product.view(*states.shape[:-1], len(weight))


class _BlockedLinear(torch.autograd.Function):
    """`states @ weight.T` in float32; what is saved for the backward pass stays half."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(states, weight)
        return _blocked_matmul(states, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        states, weight = ctx.saved_tensors
        needs_states, needs_weight = ctx.needs_input_grad
        return (
            grad_of_states(gradient, weight) if needs_states else None,
            grad_of_weight(gradient, states).to(weight.dtype) if needs_weight else None,
        )


def grad_of_states(gradient: Tensor, weight: Tensor) -> Tensor:
    """Gradient of `multiply` with respect to its states.

    Args:
        gradient: Of the result, [rows, out].
        weight: [out, in].

    Returns:
        [rows, in] in the dtype of `gradient`.
    """
    if half_is_slow(gradient, gradient.dtype):
        return _blocked_matmul(gradient, weight.t())
    return gradient @ weight.to(gradient.dtype)


def grad_of_weight(gradient: Tensor, states: Tensor) -> Tensor:
    """Gradient of `multiply` with respect to its weight.

    Args:
        gradient: Of the result, [rows, out].
        states: [rows, in].

    Returns:
        [out, in]: float32 where half precision is slow, elsewhere in the dtype of `gradient`.
    """
    if half_is_slow(gradient, gradient.dtype):
        return gradient.float().t() @ states.float()
    return gradient.t() @ states.to(gradient.dtype)


def _blocked_matmul(states: Tensor, weight: Tensor) -> Tensor:
    """Return `states @ weight.T` in the dtype of `states`: [rows, in], [out, in] → [rows, out]."""
    exact = states.float()
    if is_compiling_or_tracing():
        return (exact @ weight.float().t()).to(states.dtype)
    size = _BLOCK_ROWS if weight.dtype == torch.float32 else _HALF_BLOCK_ROWS
    product = states.new_empty(len(states), len(weight))
    for part, block in zip(product.split(size, dim=1), weight.split(size), strict=True):
        # The BLAS is faster with the larger side on the left.
        if len(states) >= size // 2:
            part.copy_(exact @ block.float().t())
        else:
            part.copy_((block.float() @ exact.t()).t())
    return product


def sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as `"sdpa"` does, in float32 where that is better than half precision.

    Args:
        module: The attention layer.
        query: [batch, heads, queries, head_dim].
        key: [batch, heads, keys, head_dim].
        value: As `key`.
        attention_mask: Broadcastable to [batch, heads, queries, keys], or None.
        dropout: Probability of dropping a weight.
        **kwargs: As of transformers' `sdpa_attention_forward`.

    Returns:
        [batch, queries, heads, head_dim] in the dtype of `value`, and None for the weights.
    """
    states = query, key, value
    if cpu_kernels.can_use_decode_attention(*states, attention_mask, dropout):
        return cpu_kernels.decode_attention(*states), None
    if not half_is_slow(value, value.dtype) or is_tracing():
        attn_out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, **kwargs
        )
        return attn_out, None
    if attention_mask is not None:
        attention_mask = attention_mask.expand(len(query), *attention_mask.shape[1:])
        if attention_mask.dtype != torch.bool:
            attention_mask = attention_mask.float()
    parts = []
    # One text at a time needs little memory; a compiler has no use for the same lines many times.
    texts = len(query) if is_compiling_or_tracing() else 1
    with torch.autocast("cpu", enabled=False):
        for first in range(0, len(query), texts):
            some = slice(first, first + texts)
            mask = None if attention_mask is None else attention_mask[some]
            q, k, v = (each[some].float() for each in states)
            attn_out, _ = sdpa_attention_forward(module, q, k, v, mask, dropout, **kwargs)
            parts.append(attn_out.to(value.dtype))
    return torch.cat(parts), None
