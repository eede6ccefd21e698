"""Model FLOPs utilisation (MFU): how fast a run goes over how fast the device could go."""

from __future__ import annotations

import time

import torch
from torch import nn

__all__ = ["MfuMeter", "flops_per_token"]


def flops_per_token(model: nn.Module, hidden_size: int, num_layers: int, window_size: int) -> float:
    """Count the floating-point operations that training needs for a token, at the least.

    Two for each weight of a matrix going forward, two for the gradient of its input, and two more
    for its own gradient if it is trained; and for causal attention the scores and the mixture.
    Recomputed activations are not counted: they are the price of a method, not work done.

    Args:
        model: Tied matrices count once, as the head; a lookup is no operation.
        hidden_size: Channels.
        num_layers: Layers.
        window_size: Tokens of a window.

    Returns:
        Multiplications and additions, forward and backward.
    """
    matrices = sum(
        p.numel() * (6 if p.requires_grad else 4) for p in model.parameters() if p.ndim == 2
    )
    return matrices + 6.0 * num_layers * hidden_size * window_size


class MfuMeter:
    """Turns tokens per second into MFU.

    What the device could do is measured, not looked up: a large product of matrices of the run's
    type, once, in a fraction of a second. So MFU is comparable between runs on one kind of device.

    Args:
        flops_per_token: Operations of one token.
        device: Where the run is.
        dtype: What it multiplies in.
    """

    def __init__(self, flops_per_token: float, device: torch.device, dtype: torch.dtype) -> None:
        self._flops_per_token = flops_per_token
        self._peak_flops = _measured_flops(device, dtype)

    def mfu(self, tokens_per_second: float) -> float:
        """Compute MFU.

        Args:
            tokens_per_second: Of all processes together, if `flops_per_token` is of one.

        Returns:
            The model's operations over those that the device could have done, 0 to about 1.
        """
        return tokens_per_second * self._flops_per_token / self._peak_flops


def _measured_flops(device: torch.device, dtype: torch.dtype) -> float:
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
