"""A running average of the weights (EMA), which often predicts better than the last ones.

After each step the average takes a small share of the new weights; what that is good for:
https://arxiv.org/abs/2411.18704.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gpt_neox_japanese.training.checkpoints.gather import gather_parameters, restore_parameters

__all__ = ["WeightAverage"]


class WeightAverage:
    """The running average of those parameters that are trained.

    Args:
        parameters: `named_parameters()` of the model, sharded or not; the average begins with them.
        decay: The share of the average that stays at a step. After `n` steps it is at most
            `(1 + n) / (10 + n)`, so that the beginning, which is random, is soon forgotten.

    Example:
        >>> weight = nn.Parameter(torch.zeros(1))
        >>> average = WeightAverage([("w", weight)], decay=0.5)
        >>> weight.data.fill_(1.0)
        tensor([1.])
        >>> average.update(step=100)
        >>> average.gather()
        {'w': tensor([0.5000])}
        >>> with average.in_place():
        ...     weight.item()
        0.5
        >>> weight.item()
        1.0
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], decay: float) -> None:
        self._decay = decay
        self._trained = [(name, p) for name, p in parameters if p.requires_grad]
        self._averages = [(name, nn.Parameter(p.detach().clone())) for name, p in self._trained]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights that a step of the optimizer has made.

        Args:
            step: How many it has made.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        for (_, average), (_, parameter) in zip(self._averages, self._trained, strict=True):
            average.lerp_(parameter, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the average for its weights, and give them back afterwards.

        Yields:
            Nothing, once.
        """
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        # By value and one after the other: no second copy of a model is made, and what is sharded
        # stays where it is.
        for (_, average), (_, parameter) in zip(self._averages, self._trained, strict=True):
            weights = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(weights)

    def gather(self) -> dict[str, Tensor]:
        """Gather the average; a collective, see `gather_parameters`.

        Returns:
            Parameter → its whole average, in the memory of the CPU.
        """
        return gather_parameters(self._averages)

    def restore(self, averages: Mapping[str, Tensor]) -> None:
        """Go on with an average that was gathered.

        Args:
            averages: What `gather` gave; its names and shapes are believed.
        """
        restore_parameters(self._averages, averages)
