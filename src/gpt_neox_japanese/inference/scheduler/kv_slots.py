"""Which slot of the cache belongs to whom, and what texts lie in those that nobody uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gpt_neox_japanese.inference.network import CHUNK, Network

__all__ = ["KVSlots"]


class KVSlots:
    """Gives out the slots of a network's cache.

    Prompts that begin alike share what was computed for their beginning: whole chunks that
    `Network.prefill` has computed, and what `Network.decode` has computed after them, where it
    would do so for the new prompt too, because torch's network, on GPUs, may round the two
    differently.

    Args:
        network: Its cache is given out.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._texts = [_Text([], []) for _ in range(network.slots)]
        self._free = list(range(network.slots))  # the one that was given back first, first

    def __len__(self) -> int:
        """How many are free."""
        return len(self._free)

    def acquire(self, ids: Sequence[int]) -> int:
        """Take the free slot whose text is most useful for a new one; one must be free.

        Args:
            ids: The prompt.

        Returns:
            The slot.
        """
        slot = max(self._free, key=lambda free: self._texts[free].shared(ids))
        self._free.remove(slot)
        if len(ids) <= CHUNK:  # there will be no chunk to read, so nobody will ask `reuse_prefix`
            self.forget(slot)
        return slot

    def reuse_prefix(self, slot: int, ids: Sequence[int]) -> int:
        """Bring what any slot holds of a text into its own slot.

        Call it before the first token of a longer text is read.

        Args:
            slot: Of the text.
            ids: Its prompt.

        Returns:
            How many tokens of the text its slot holds now.
        """
        shared = [text.shared(ids) for text in self._texts]
        length = max(shared)
        if shared[slot] < length:
            self._network.copy(shared.index(length), slot, length)
        self._network.truncate(slot, length)
        self._texts[slot] = _Text(list(ids[: length - length % CHUNK]), [])
        return length

    def forget(self, slot: int) -> None:
        """Trust nothing of what lies in a slot.

        Args:
            slot: Of a text that is computed from its first token on.
        """
        self._network.truncate(slot, 0)
        self._texts[slot] = _Text([], [])

    def record(self, slot: int, ids: Sequence[int]) -> None:
        """Tell that the chunks `ids` were read into a slot, after those that it holds.

        Args:
            slot: Of a text.
            ids: Whole chunks.
        """
        self._texts[slot].chunks.extend(ids)

    def release(self, slot: int, ids: Sequence[int]) -> None:
        """Free a slot. Its text stays until the slot is given to another.

        Args:
            slot: Of a text that has ended.
            ids: All that was computed of it: chunks that were recorded, and what `decode` computed
                after them.
        """
        self._texts[slot].tail[:] = ids[len(self._texts[slot].chunks) :]
        self._free.append(slot)

    def clear(self) -> None:
        """Free everything, and trust nothing of what lies there."""
        self._texts = [_Text([], []) for _ in self._texts]
        self._free = list(range(len(self._texts)))


class _Text(NamedTuple):
    """What lies in a slot.

    Attributes:
        chunks: Ids that `prefill` computed.
        tail: Ids after them that `decode` computed; none as long as the text is being written.
    """

    chunks: list[int]
    tail: list[int]

    def shared(self, ids: Sequence[int]) -> int:
        """How many ids at its beginning a new prompt can take; its last is left to be computed."""
        whole = (len(ids) - 1) // CHUNK * CHUNK  # those that `prefill` would compute
        chunks = _num_equal(self.chunks, ids[:whole]) // CHUNK * CHUNK
        if chunks < whole or len(self.chunks) > whole:
            return chunks
        return whole + _num_equal(self.tail, ids[whole:-1])


def _num_equal(text: Sequence[int], ids: Sequence[int]) -> int:
    """Length of the longest beginning of both."""
    most = min(len(text), len(ids))
    return next((i for i in range(most) if text[i] != ids[i]), most)
