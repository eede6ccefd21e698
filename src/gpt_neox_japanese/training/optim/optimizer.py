"""The optimizers of a run: Muon with AdamW as one optimizer, or AdamW alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast, overload

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from gpt_neox_japanese.training.optim.muon import muon_step

__all__ = ["MuonAndAdamW", "adamw", "hidden_matrices", "state_layout"]

_BETAS = (0.9, 0.95)


def adamw(model: nn.Module, lr: float, weight_decay: float) -> AdamW:
    """Make AdamW for everything that is trained.

    Args:
        model: Whose parameters with `requires_grad` are trained.
        lr: Learning rate.
        weight_decay: Of matrices; norms and biases have none.

    Returns:
        Torch's fused AdamW.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim == 2]},
        {"params": [p for p in parameters if p.ndim != 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return AdamW(groups, lr=lr, weight_decay=weight_decay, betas=_BETAS, fused=True)


class MuonAndAdamW(Optimizer):
    """Muon for the hidden matrices, AdamW for the rest, with one learning rate.

    Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix before it is applied. That
    suits the matrices between hidden layers; embeddings, the output matrix, norms and biases are
    AdamW's. Muon's step has the size AdamW's would have, so one learning rate, one schedule and
    one weight decay serve both.

    This object owns the parameter groups and the state; the AdamW inside only lends its step. So
    schedules, `state_dict` and accelerate work as with any other optimizer.

    Args:
        model: A causal language model with `get_input_embeddings` and `get_output_embeddings`.
        lr: Learning rate.
        weight_decay: Decoupled weight decay of all matrices; norms and biases have none.
        betas: AdamW's decay rates.
        momentum: Muon's momentum.

    Example:
        >>> from gpt_neox_japanese import GPTNeoXJapaneseConfig, GPTNeoXJapaneseForCausalLM
        >>> config = GPTNeoXJapaneseConfig(
        ...     vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        ...     bos_token_id=0, eos_token_id=0,
        ... )
        >>> model = GPTNeoXJapaneseForCausalLM(config)
        >>> optimizer = MuonAndAdamW(model, lr=1e-3, weight_decay=0.1)
        >>> ids = torch.tensor([[1, 2, 3]])
        >>> model(ids, labels=ids).loss.backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        weight_decay: float,
        betas: tuple[float, float] = _BETAS,
        momentum: float = 0.95,
    ) -> None:
        hidden, embeddings, vectors = _sorted_parameters(model)
        groups: list[dict[str, Any]] = [
            {"params": embeddings},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self._adamw = AdamW(groups, lr=lr, weight_decay=weight_decay, betas=betas, fused=True)
        muon = {"params": hidden, "lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__([muon, *self._adamw.param_groups], {})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter once.

        Args:
            closure: Computes the loss anew, with gradients, if the caller wants that.

        Returns:
            What `closure` gave.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        muon_step(self.param_groups[0], self.state)
        # Lent anew each time: load_state_dict replaces both the groups and the state.
        self._adamw.param_groups, self._adamw.state = self.param_groups[1:], self.state
        self._adamw.step()
        return loss


def state_layout(
    optimizer: Optimizer, parameters: Iterable[tuple[str, nn.Parameter]]
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """What one of these optimizers remembers after a step.

    Args:
        optimizer: Of the functions above; every parameter has had a gradient.
        parameters: `named_parameters()` of the model.

    Returns:
        `<parameter>/<name>` → shape and dtype.
    """
    names = {id(parameter): name for name, parameter in parameters}
    layout: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
    for group in optimizer.param_groups:
        is_muon = "momentum" in group
        for parameter in group["params"]:
            name, kind = names[id(parameter)], (tuple(parameter.shape), parameter.dtype)
            for key in ("momentum_buffer",) if is_muon else ("exp_avg", "exp_avg_sq"):
                layout[f"{name}/{key}"] = kind
            if not is_muon:
                layout[f"{name}/step"] = ((), torch.float32)
    return layout


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that `MuonAndAdamW` gives to Muon.

    Args:
        model: See `MuonAndAdamW`.
    """
    return _sorted_parameters(model)[0]


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
