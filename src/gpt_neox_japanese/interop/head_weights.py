"""The head's weight, as engines expect it that share one head with all their models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from gpt_neox_japanese.errors import CheckpointError

__all__ = ["HeadRenaming", "rename_head"]

_HEAD, _EMBEDDING = "embed_out.weight", "embed_in.weight"


class HeadRenaming:
    """Stands before an engine's wrapper around models of transformers, as in vLLM and SGLang."""

    def load_weights(self: Any, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load a checkpoint.

        Args:
            weights: Names and tensors of the checkpoint.

        Returns:
            Names of the parameters that were loaded.

        Raises:
            CheckpointError: As `rename_head`.
        """
        tied = bool(self.config.tie_word_embeddings)
        renamed = rename_head(weights, tied=tied)
        loaded: set[str] = super().load_weights(renamed)  # type: ignore[misc]  # the wrapper's
        return loaded


def rename_head(
    weights: Iterable[tuple[str, Tensor]], *, tied: bool
) -> Iterator[tuple[str, Tensor]]:
    """Give a checkpoint's tensors, the head by the name `lm_head.weight`, or not at all if tied.

    Some checkpoints hold two different tensors while their config.json ties them. The classes of
    this package then keep both. An engine has made one of them by now, so it is told.

    Args:
        weights: Names and tensors, any shapes and dtypes, in any order.
        tied: Whether the engine's head is the embedding.

    Yields:
        Names and tensors, in the same order.

    Raises:
        CheckpointError: The head is tied, and the checkpoint has another tensor for it.
    """
    pair: dict[str, Tensor] = {}
    for name, tensor in weights:
        last = ".".join(name.split(".")[-2:])
        if tied and last in (_HEAD, _EMBEDDING):
            pair[last] = tensor
            if len(pair) == 2 and not torch.equal(pair[_HEAD], pair[_EMBEDDING]):
                raise CheckpointError(
                    f"{_HEAD} and {_EMBEDDING} differ, and config.json ties them; set"
                    ' "tie_word_embeddings": false there to use both'
                )
        if name != _HEAD:
            yield name, tensor
        elif not tied:
            yield "lm_head.weight", tensor
