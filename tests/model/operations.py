"""What torch carries out, seen from outside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """While it is entered, it notes the operations that torch carries out."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[tuple[torch.dtype, torch.Size]]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        operands = [(each.dtype, each.shape) for each in args if isinstance(each, Tensor)]
        self.seen.append((str(func), operands))
        return func(*args, **(kwargs or {}))

    @property
    def products(self) -> list[list[tuple[torch.dtype, torch.Size]]]:
        """Dtypes and sizes of what was multiplied, product by product."""
        return [operands for name, operands in self.seen if name.startswith("aten.mm.")]

    @property
    def product_dtypes(self) -> set[torch.dtype]:
        return {dtype for operands in self.products for dtype, _ in operands}
