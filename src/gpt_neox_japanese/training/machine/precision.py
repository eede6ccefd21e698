"""Which devices multiply bfloat16 themselves, and which only imitate it, tens of times slower."""
# torch's own functions carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import platform

import torch

__all__ = ["has_bf16_units", "training_device"]


def training_device() -> torch.device:
    """The kind of device that a run takes: GPUs if there are any."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bf16_units(device: torch.device) -> bool:
    """Whether a device has units that multiply bfloat16.

    Args:
        device: A GPU, or the processor: AVX512-BF16, AMX and Arm's BF16 are such units. AVX-512
            alone is none.

    Returns:
        False where it would be emulated.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if platform.machine().lower() in ("aarch64", "arm64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
