"""Head and loss in one: the gradients of a slice are made while its logits are at hand.

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

from gpt_neox_japanese.model.decode.linear import for_states, for_weight, is_bare_product, multiply
from gpt_neox_japanese.quantization.torch_matmul import is_recorded

__all__ = ["head_loss", "suits_head_loss"]


def suits_head_loss(head: nn.Module, states: Tensor) -> TypeGuard[nn.Linear]:
    """Whether `head` is a product and nothing else: not quantised, split, hooked or adapted."""
    device = states.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return (
        is_bare_product(head)
        and not is_recorded()  # such a function cannot be
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
        positions: Of a slice.

    Returns:
        Scalar, float32, or float64 for float64 weights.
    """
    total: Tensor = _HeadLoss.apply(states, weight, targets, ignore_index, positions)
    return total


class _HeadLoss(torch.autograd.Function):
    """The sum; with it, what the backward pass only has to scale."""

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
        of_states = torch.empty_like(states) if needs_states else None
        of_weight = torch.zeros_like(weight, dtype=exact) if needs_weight else None
        for first in range(0, len(states), positions):
            part = slice(first, first + positions)
            scores = multiply(states[part], weight)
            loss, gradient = _loss_and_gradient(scores.to(exact), targets[part], ignore_index)
            total += loss
            gradient = gradient.to(scores.dtype)
            if of_states is not None:
                of_states[part] = for_states(gradient, weight)
            if of_weight is not None:
                of_weight += for_weight(gradient, states[part])
        if of_weight is not None:
            of_weight = of_weight.to(weight.dtype)
        ctx.save_for_backward(of_states, of_weight)
        return total

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
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
