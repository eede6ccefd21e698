"""The language-model loss, a slice of positions at a time.

Cross-entropy wants float32, for every position and every id of the vocabulary: 8 texts of 2,048
tokens and 32,000 ids are 2 GB, and autograd keeps several such tensors. Here only one slice of
bounded size exists in float32. Where the head can be taken along, the gradient of a slice is made
at once (`head_loss`); elsewhere its forward pass is repeated when the gradient is needed.
"""

# torch's methods carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gpt_neox_japanese.checks import check_integer
from gpt_neox_japanese.errors import ArgumentError
from gpt_neox_japanese.model.decode.linear import linear
from gpt_neox_japanese.model.head_loss import can_use_head_loss, head_loss

__all__ = ["causal_lm_loss"]

# Logits that exist in float32 at one time: 32 MiB.
_SLICE = 2**23


def causal_lm_loss(
    logits: Tensor,
    labels: Tensor | None,
    vocab_size: int,
    num_items_in_batch: Tensor | int | None = None,
    ignore_index: int = -100,
    shift_labels: Tensor | None = None,
    head: nn.Module | None = None,
    num_ids: int | None = None,
    **_: Any,
) -> Tensor:
    """Compare each position's scores with the next token; transformers' `loss_function` interface.

    Args:
        logits: [batch, tokens, vocab]; with `head`, what it is to be applied to.
        labels: The input ids again, int64 [batch, tokens], shifted here.
        vocab_size: Ids of the vocabulary.
        num_items_in_batch: Divide the sum by this number, not by the number of labels that count.
            `Trainer` counts over all the batches that make one step.
        ignore_index: Label of positions that do not count.
        shift_labels: Labels that are shifted already, int64 [batch, tokens], instead of `labels`.
        head: Computes the logits, [positions, vocab], of one slice of positions when needed.
        num_ids: Compare the scores of so many ids, the first ones, as if there were no others.

    Returns:
        float32 scalar (float64 for float64 logits). If no label counts it is zero, and so is its
        gradient: such a batch teaches nothing and harms nothing.

    Raises:
        ArgumentError: `num_ids` is no number of ids.
    """
    if num_ids is not None:  # of a negative number Python would cut the last rows off
        num_ids = check_integer("num_ids", num_ids, ArgumentError, minimum=1)
    if shift_labels is None:
        assert labels is not None
        shift_labels = nn.functional.pad(labels[..., 1:], (0, 1), value=ignore_index)
    targets = shift_labels.reshape(-1).to(logits.device)
    states = logits.reshape(-1, logits.shape[-1])

    def summed(some_states: Tensor, some_targets: Tensor) -> Tensor:
        scores = some_states if head is None else linear(head, some_states)
        scores = scores[..., :num_ids].to(torch.promote_types(scores.dtype, torch.float32))
        return nn.functional.cross_entropy(
            scores, some_targets, ignore_index=ignore_index, reduction="sum"
        )

    positions = max(1, _SLICE // vocab_size)
    if head is not None and can_use_head_loss(head, states):
        weight = head.weight if num_ids is None else head.weight[:num_ids]
        total = head_loss(states, weight, targets, ignore_index, positions)
    elif len(targets) <= positions:
        total = summed(states, targets)
    else:
        slices = zip(states.split(positions), targets.split(positions), strict=True)
        sums = [checkpoint(summed, *each, use_reentrant=False) for each in slices]
        total = torch.stack(sums).sum()
    count = (targets != ignore_index).sum() if num_items_in_batch is None else num_items_in_batch
    return total / torch.as_tensor(count, device=total.device).clamp(min=1)
