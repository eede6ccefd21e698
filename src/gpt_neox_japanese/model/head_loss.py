"""Fused head and cross-entropy: a slice's gradients are computed while its logits are at hand.

The gradient of cross-entropy with respect to the logits is softmax minus one-hot, which is nearly
there when the loss is. So the head's product is not computed twice, as it is when the forward pass
of a slice is repeated for its backward pass, and yet only the logits of one slice are in memory.
"""

# torch's methods carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from gpt_neox_japanese.errors import ArgumentError
from gpt_neox_japanese.model.decode.linear import (
    grad_of_states,
    grad_of_weight,
    is_plain_linear,
    multiply,
)
from gpt_neox_japanese.quantization.torch_matmul import is_compiling_or_tracing

__all__ = ["can_use_head_loss", "head_loss"]


def can_use_head_loss(head: nn.Module, states: Tensor) -> TypeGuard[nn.Linear]:
    """Whether `head` multiplies by its weight and does nothing else.

    Args:
        head: The language-model head.
        states: [positions, hidden], what it would be applied to.

    Returns:
        False if the head is quantised, split, hooked or adapted, if a graph is captured, or if
        float16 takes part.
    """
    device = states.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return (
        is_plain_linear(head)
        and not is_compiling_or_tracing()  # such a function cannot be
        and type(head.weight) is nn.Parameter
        # Gradients of float16 vanish before they are scaled up.
        and torch.float16 not in (head.weight.dtype, states.dtype, autocast)
    )


def head_loss(
    states: Tensor, weight: Tensor, targets: Tensor, ignore_index: int, positions: int
) -> Tensor:
    """Sum the cross-entropy of `multiply(states, weight)`, some positions at a time.

    Args:
        states: [positions, hidden].
        weight: [vocab, hidden].
        targets: int64 [positions].
        ignore_index: Target of positions that do not count.
        positions: How many positions a slice has.

    Returns:
        Scalar, float32, or float64 for float64 weights.
    """
    total: Tensor = _HeadLoss.apply(states, weight, targets, ignore_index, positions)
    return total


class _HeadLoss(torch.autograd.Function):
    """The sum; the forward pass computes the gradients too, and the backward pass scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        targets: Tensor,
        ignore_index: int,
        positions: int,
    ) -> Tensor:
        exact = torch.promote_types(weight.dtype, torch.float32)
        needs_states, needs_weight = ctx.needs_input_grad[:2]
        total = torch.zeros((), dtype=exact, device=states.device)
        states_grad = torch.empty_like(states) if needs_states else None
        weight_grad = torch.zeros_like(weight, dtype=exact) if needs_weight else None
        for first in range(0, len(states), positions):
            part = slice(first, first + positions)
            scores = multiply(states[part], weight)
            loss, gradient = _loss_and_gradient(scores.to(exact), targets[part], ignore_index)
            total += loss
            gradient = gradient.to(scores.dtype)
            if states_grad is not None:
                states_grad[part] = grad_of_states(gradient, weight)
            if weight_grad is not None:
                weight_grad += grad_of_weight(gradient, states[part])
        if weight_grad is not None:
            weight_grad = weight_grad.to(weight.dtype)
        ctx.save_for_backward(states_grad, weight_grad)
        return total

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # by create_graph=True
            raise ArgumentError(
                "the gradient of a loss without logits has no gradient itself; pass"
                " skip_logits=False where you need one, or leave create_graph out"
            )
        scaled = (
            None if each is None else (each * factor).to(each.dtype) for each in ctx.saved_tensors
        )
        return (*scaled, None, None, None)


def _loss_and_gradient(scores: Tensor, targets: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Sum of the cross-entropy and its gradient, [positions, vocab]: softmax minus one-hot."""
    counts = (targets != ignore_index)[:, None]
    targets = targets[:, None].where(counts, 0)
    logarithms = torch.log_softmax(scores, dim=-1)
    loss = -logarithms.gather(-1, targets).where(counts, 0).sum()
    gradient = logarithms.exp_()
    gradient.scatter_add_(-1, targets, gradient.new_full((), -1).expand_as(targets))
    return loss, gradient.mul_(counts)
