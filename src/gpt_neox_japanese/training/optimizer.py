"""Muon for the hidden matrices, AdamW for everything else, behind one optimizer's face."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast, overload

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

__all__ = ["MuonAndAdamW"]


class MuonAndAdamW(Optimizer):
    """Two optimizers that share one learning rate.

    Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix before it is applied. That
    suits the matrices between hidden layers; embeddings, the output matrix, norms and biases are
    AdamW's. Muon's step is scaled to the size AdamW's would have (Liu et al. 2025,
    arXiv:2502.16982), so one learning rate, one schedule and one weight decay serve both.

    This object owns the parameter groups and the state; the two optimizers inside only lend their
    step. So schedules, `state_dict` and accelerate work as with any other optimizer.

    Args:
        model: a causal language model with `get_input_embeddings` and `get_output_embeddings`.
        lr: learning rate.
        weight_decay: decoupled weight decay of all matrices; norms and biases have none.
        betas: AdamW's decay rates.
        momentum: Muon's momentum.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.95),
        momentum: float = 0.95,
    ) -> None:
        hidden, embeddings, vectors = _sorted_parameters(model)
        self._muon = Muon(
            hidden,
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            adjust_lr_fn="match_rms_adamw",
        )
        groups: list[dict[str, Any]] = [
            {"params": embeddings},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self._adamw = AdamW(
            groups,
            lr=lr,
            weight_decay=weight_decay,
            betas=betas,
            fused=True,
        )
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Lent anew each time: load_state_dict replaces both the groups and the state.
        for optimizer, groups in (
            (self._muon, self.param_groups[:1]),
            (self._adamw, self.param_groups[1:]),
        ):
            optimizer.param_groups, optimizer.state = groups, self.state
            optimizer.step()  # type: ignore[no-untyped-call]
        return loss


def _sorted_parameters(
    model: nn.Module,
) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """The trainable parameters: hidden matrices, embedding and output matrices, vectors."""
    ends = {
        id(getattr(module, "weight", None))
        for module in (
            cast(Any, model).get_input_embeddings(),
            cast(Any, model).get_output_embeddings(),
        )
    }
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim == 2]
    return (
        [p for p in matrices if id(p) not in ends],
        [p for p in matrices if id(p) in ends],
        [p for p in parameters if p.ndim != 2],
    )
