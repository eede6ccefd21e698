"""Which slot of the cache belongs to whom, and what texts lie in those that nobody uses."""

from __future__ import annotations

from collections.abc import Sequence

from gpt_neox_japanese.inference.network import CHUNK, Network

__all__ = ["KVSlots"]


class KVSlots:
    """Gives out the slots of a network's cache.

    Prompts that begin alike share what was computed for their beginning: whole chunks that
    `Network.prefill` has read. What was read otherwise is not shared, because it may differ in the
    last bit from what `prefill` would have computed.

    Args:
        network: Its cache is given out.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._texts: list[list[int]] = [[] for _ in range(network.slots)]
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
        slot = max(self._free, key=lambda free: _shared_chunks(self._texts[free], ids))
        self._free.remove(slot)
        if len(ids) <= CHUNK:  # there will be no chunk to read, so nobody will ask `reuse_prefix`
            self._texts[slot] = []
        return slot

    def reuse_prefix(self, slot: int, ids: Sequence[int]) -> int:
        """Bring the chunks that any slot holds of a text into its own slot.

        Call it before the first token of a longer text is read.

        Args:
            slot: Of the text.
            ids: Its prompt.

        Returns:
            How many tokens of the text its slot holds now.
        """
        shared = [_shared_chunks(text, ids) for text in self._texts]
        length = max(shared)
        if shared[slot] < length:
            self._network.copy(shared.index(length), slot, length)
        self._texts[slot] = list(ids[:length])
        return length

    def forget(self, slot: int) -> None:
        """Trust nothing of what lies in a slot.

        Args:
            slot: Of a text that is computed from its first token on.
        """
        self._texts[slot] = []

    def record(self, slot: int, ids: Sequence[int]) -> None:
        """Tell that the chunks `ids` were read into a slot, after those that it holds.

        Args:
            slot: Of a text.
            ids: Whole chunks.
        """
        self._texts[slot] += ids

    def release(self, slot: int) -> None:
        """Free a slot. Its text stays until the slot is given to another.

        Args:
            slot: Of a text that has ended.
        """
        self._free.append(slot)

    def clear(self) -> None:
        """Free everything, and trust nothing of what lies there."""
        self._texts = [[] for _ in self._texts]
        self._free = list(range(len(self._texts)))


def _shared_chunks(text: Sequence[int], ids: Sequence[int]) -> int:
    """Length of the whole chunks at the beginning of both; the last id is left to be read."""
    most = min(len(text), len(ids) - 1)
    same = next((i for i in range(most) if text[i] != ids[i]), most)
    return same - same % CHUNK
