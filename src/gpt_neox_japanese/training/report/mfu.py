"""Model FLOPs utilisation (MFU): how fast a run goes over how fast the device could go."""

from __future__ import annotations

import time

import torch
from torch import nn

from gpt_neox_japanese.quantization.hf_modules import parameter_sizes
from gpt_neox_japanese.training.machine.precision import has_bf16_units

__all__ = ["MfuMeter", "flops_per_token"]

_SECONDS_BETWEEN_MEASUREMENTS = 60.0


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
        size * (6 if p.requires_grad else 4) for p, size in parameter_sizes(model) if p.ndim == 2
    )
    return matrices + 6.0 * num_layers * hidden_size * window_size


class MfuMeter:
    """Turns tokens per second into MFU.

    What the device could do is measured, not looked up: a large product of matrices, in the run's
    type where the device has units for it. A device that is shared is slower at times, so it is
    measured again now and then, and the fastest time counts. What a run does the device can do: a
    run that is faster than every product so far is at 1.

    Args:
        flops_per_token: Operations of one token.
        device: Where the run is.
        dtype: What it multiplies in.
    """

    def __init__(self, flops_per_token: float, device: torch.device, dtype: torch.dtype) -> None:
        self._flops_per_token = flops_per_token
        self._device = device
        emulated = dtype == torch.bfloat16 and not has_bf16_units(device)
        self._dtype = torch.float32 if emulated else dtype
        self._peak_flops = 0.0
        self._measured = -float("inf")

    def peak_flops(self) -> float:
        """The fastest that the device has been so far; measured now if that is long ago.

        Returns:
            Multiplications and additions a second.
        """
        if time.monotonic() - self._measured > _SECONDS_BETWEEN_MEASUREMENTS:
            self._peak_flops = max(self._peak_flops, _measure_flops(self._device, self._dtype))
            self._measured = time.monotonic()
        return self._peak_flops

    def mfu(self, tokens_per_second: float) -> float:
        """Compute MFU.

        Args:
            tokens_per_second: Of all processes together, if `flops_per_token` is of one.

        Returns:
            The model's operations over those that the device could have done, 0 to 1.
        """
        done = tokens_per_second * self._flops_per_token
        self._peak_flops = max(self.peak_flops(), done)
        return done / self._peak_flops


def _measure_flops(device: torch.device, dtype: torch.dtype) -> float:
    size = 8192 if device.type == "cuda" else 1024
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
