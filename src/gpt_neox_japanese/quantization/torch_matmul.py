"""torch's tensors multiplied by the kernels, and when that may be: torch does not see it."""
# Methods of torch carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from gpt_neox_japanese.quantization.formats import Matrix
from gpt_neox_japanese.quantization.matmul import matmul

__all__ = ["is_recorded", "is_traced", "is_unobserved", "product"]


def is_traced() -> bool:
    """Whether `torch.jit.trace` or `torch.func` follows: they know torch's own operations only."""
    return not torch.compiler.is_compiling() and (
        torch._C._is_tracing() or torch._C._are_functorch_transforms_active()
    )


def is_recorded() -> bool:
    """Whether a compiler or a tracer writes down what is computed, to compute it otherwise."""
    return torch.compiler.is_compiling() or is_traced()


def is_unobserved(*tensors: Tensor) -> bool:
    """Whether nobody would miss what is computed on the memory of these tensors.

    Recorders, modes that see every operation (such as `FlopCounterMode`) and subclasses of tensors
    would. Autograd is for the caller to ask about.
    """
    return not (
        is_recorded()
        or is_in_torch_dispatch_mode()
        or any(each.device.type != "cpu" for each in tensors)
        or any(type(each) not in (Tensor, torch.nn.Parameter) for each in tensors)
    )


def product(states: Tensor, matrix: Matrix) -> Tensor:
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
