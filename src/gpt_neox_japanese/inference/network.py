"""What the engine needs of a network: tokens and where they stand in, logits of the next one out.

Two classes are one. `cpu.network.CompiledNetwork` runs on the processor at the speed of its memory;
`torch.network.TensorNetwork` runs wherever torch does, and is the readable twin of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.inference.loading.hparams import HParams

__all__ = ["CHUNK", "BatchToken", "Network"]

CHUNK = 128  # tokens of a chunk of `prefill`


class BatchToken(NamedTuple):
    """A token and where it stands."""

    id: int
    slot: int
    position: int


class Network(Protocol):
    """A causal language model with a cache of several slots, one for each text.

    What is computed for a token depends on the tokens before it in its slot and on nothing else:
    not on other slots, nor on how many tokens one call takes. `CompiledNetwork` keeps this to the
    last bit; torch's own products and attention may round differently from one shape to another.

    Attributes:
        hparams: Sizes and constants.
        slots: Texts that the cache holds at once.
        capacity: Tokens that a slot holds.
        max_rows: Tokens that `decode` takes at once.
    """

    hparams: HParams
    slots: int
    capacity: int
    max_rows: int

    @property
    def description(self) -> str:
        """What runs, in one line."""

    def decode(
        self, tokens: Sequence[BatchToken], num_without_logits: int = 0
    ) -> NDArray[np.float32]:
        """Compute up to `max_rows` tokens, and the logits of what may follow each.

        Args:
            tokens: Those of one slot in the order of their positions; a position is at most one
                more than what the slot holds.
            num_without_logits: Leading tokens that run without logits.

        Returns:
            float32 [tokens - num_without_logits, vocabulary], which the next call may overwrite.
        """

    def prefill(
        self,
        ids: Sequence[int],
        slot: int,
        position: int,
        *,
        is_wanted: Callable[[], bool] = lambda: True,
        with_logits: bool = False,
    ) -> NDArray[np.float32] | None:
        """Compute one or more whole chunks of a prompt.

        Args:
            ids: A multiple of CHUNK.
            slot: Where the text is kept.
            position: Of the first id; a multiple of CHUNK.
            is_wanted: Asked between layers; once it is false, the rest is not computed.
            with_logits: Compute what may follow each id too.

        Returns:
            Logits, float32 [ids, vocabulary], or [0, vocabulary] without; None if it was given up:
            then the slot holds nothing of these chunks.
        """

    def copy(self, source: int, target: int, length: int) -> None:
        """Make the first `length` tokens of slot `target` those of slot `source`.

        Args:
            source: A slot.
            target: Another.
            length: In tokens.
        """

    def truncate(self, slot: int, length: int) -> None:
        """Clear a slot behind its first `length` tokens, before another text is computed there.

        Args:
            slot: A slot.
            length: In tokens.
        """

    def close(self) -> None:
        """End the network's own threads, if it has any; the next call would start new ones."""
