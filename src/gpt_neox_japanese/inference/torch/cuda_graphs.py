"""The scores of a network as captured CUDA graphs."""
# torch's streams carry no annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["MAX_ROWS", "Graphs"]

MAX_ROWS = 8
"""Tokens of a step; every step computes so many."""

# A graph reads the cache up to a fixed length. It is captured for every multiple of this.
_STRETCH = 256


class Graphs:
    """Replays a function of rows and an end, one graph for each stretch of ends.

    Args:
        function: `(rows, end)` → scores. It must do nothing that a graph cannot hold.
        capacity: The largest end.
        device: The GPU that the function computes on, whichever is torch's current one.
    """

    def __init__(
        self, function: Callable[[Tensor, int], Tensor], capacity: int, device: torch.device
    ) -> None:
        self._function = function
        self._capacity = capacity
        self._device = device
        self._rows = torch.zeros(3, MAX_ROWS, dtype=torch.int64, device=device)
        self._captured: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def run(self, rows: Tensor, end: int) -> Tensor:
        """What the function gives for an end that is at least `end`; overwritten by the next run.

        Args:
            rows: int64 [3, MAX_ROWS] on the GPU.
            end: From 1 to the capacity.

        Returns:
            The scores, on the GPU.
        """
        end = min(-(-end // _STRETCH) * _STRETCH, self._capacity)
        with torch.cuda.device(self._device):  # streams and graphs are made on the current one
            self._rows.copy_(rows)
            if end not in self._captured:
                self._captured[end] = self._capture(end)
            graph, scores = self._captured[end]
            graph.replay()
        return scores

    def _capture(self, end: int) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        # Libraries set themselves up at the first call, which must not be captured.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._function(self._rows, end)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            scores = self._function(self._rows, end)
        return graph, scores
