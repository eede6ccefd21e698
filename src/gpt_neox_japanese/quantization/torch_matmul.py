"""Products of torch's tensors by the kernels; and when torch may be bypassed."""
# Methods of torch carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from gpt_neox_japanese.quantization.formats import Matrix
from gpt_neox_japanese.quantization.matmul import matmul

__all__ = ["can_bypass_torch", "is_compiling_or_tracing", "is_tracing", "matmul_tensor"]


def is_tracing() -> bool:
    """Whether `torch.jit.trace` or `torch.func` is at work: they know torch's own operations only.

    Returns:
        True while tracing; False while compiling.
    """
    return not torch.compiler.is_compiling() and (
        torch._C._is_tracing() or torch._C._are_functorch_transforms_active()
    )


def is_compiling_or_tracing() -> bool:
    """Whether a compiler or a tracer captures a graph of what is computed.

    Returns:
        True within `torch.compile`, `torch.export`, `torch.jit.trace` and `torch.func`.
    """
    return torch.compiler.is_compiling() or is_tracing()


def can_bypass_torch(*tensors: Tensor) -> bool:
    """Whether the memory of these tensors may be read without torch's operations.

    Not while a graph is captured or a mode sees every operation (such as `FlopCounterMode`), and
    not with subclasses of tensors. Whether autograd is on, the caller has to ask.

    Args:
        *tensors: Of any shape and dtype.

    Returns:
        True if all are plain tensors on the CPU and nothing observes them.
    """
    return not (
        is_compiling_or_tracing()
        or is_in_torch_dispatch_mode()
        or any(each.device.type != "cpu" for each in tensors)
        or any(type(each) not in (Tensor, torch.nn.Parameter) for each in tensors)
    )


def matmul_tensor(states: Tensor, matrix: Matrix) -> Tensor:
    """Multiply activations by a stored matrix, with the threads that torch has.

    Args:
        states: Any floating dtype, [..., columns], on the CPU.
        matrix: [outputs, columns].

    Returns:
        [..., outputs] in the dtype of `states`; the arithmetic is float32.
    """
    outputs, columns = matrix.shape
    rows = states.detach().float().reshape(-1, columns).numpy()
    out = torch.from_numpy(matmul(rows, matrix, threads=torch.get_num_threads()))
    return out.to(states.dtype).view(*states.shape[:-1], outputs)
