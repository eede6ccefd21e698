"""How fast a run goes, and how fast the device could go."""

from __future__ import annotations

import time

import torch
from torch import nn

__all__ = ["Speedometer", "operations_per_token"]


def operations_per_token(model: nn.Module, hidden: int, layers: int, window: int) -> float:
    """Multiplications and additions that training needs for a token, at the least.

    Two for each weight of a matrix going forward, two for the gradient of its input, and two more
    for its own gradient if it is trained; and for causal attention the scores and the mixture.
    Recomputed activations are not counted: they are the price of a method, not work done.

    Args:
        model: tied matrices count once, as the head; a lookup is no operation.
        hidden: channels.
        layers: layers.
        window: tokens of a window.
    """
    matrices = sum(
        p.numel() * (6 if p.requires_grad else 4) for p in model.parameters() if p.ndim == 2
    )
    return matrices + 6.0 * layers * hidden * window


class Speedometer:
    """Turns tokens per second into the share of what the device can do.

    That is measured, not looked up: a large product of matrices of the run's type, once, in a
    fraction of a second. So the share is comparable between runs on one kind of device.

    Args:
        operations: of one token.
        device: where the run is.
        dtype: what it multiplies in.
    """

    def __init__(self, operations: float, device: torch.device, dtype: torch.dtype) -> None:
        self._operations = operations
        self._possible = _operations_per_second(device, dtype)

    def share(self, tokens_per_second: float) -> float:
        """The model's operations over those the device could have done (MFU)."""
        return tokens_per_second * self._operations / self._possible


def _operations_per_second(device: torch.device, dtype: torch.dtype) -> float:
    size = 8192 if device.type == "cuda" else 512
    matrix = torch.ones(size, size, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        product = matrix @ matrix
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
        del product
    return 2.0 * size**3 / best
