"""What changes scores before one is drawn: ids that were written already, and ids that must not be.

Every function here changes a row of scores in place: float32, shape [vocab_size].
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["BadWords", "Tally", "penalize_frequency", "penalize_repetition"]

Row: TypeAlias = NDArray[np.float32]


class Tally:
    """Which ids have come so far, and how often.

    Args:
        vocab_size: Ids are below it.
        ids: Those that have come already.
    """

    def __init__(self, vocab_size: int, ids: Iterable[int] = ()) -> None:
        self._ids = np.empty(vocab_size, dtype=np.intp)
        self._counts = np.zeros(vocab_size, dtype=np.float32)
        self._place: dict[int, int] = {}
        for token_id in ids:
            self.add(token_id)

    def add(self, token_id: int) -> None:
        """Count one id more.

        Args:
            token_id: Below `vocab_size`.
        """
        place = self._place.setdefault(token_id, len(self._place))
        self._ids[place] = token_id
        self._counts[place] += 1

    @property
    def ids(self) -> NDArray[np.intp]:
        """Each id once, in the order of its first coming."""
        return self._ids[: len(self._place)]

    @property
    def counts(self) -> Row:
        """How often each of `ids` came."""
        return self._counts[: len(self._place)]


def penalize_repetition(scores: Row, seen: Tally, penalty: float) -> None:
    """Divide the positive scores of ids in `seen` by `penalty`, multiply the negative ones.

    From Keskar et al., 2019, arXiv:1909.05858, with transformers' care for the sign.

    Args:
        scores: float32 [vocab_size].
        seen: Ids of prompt and text.
        penalty: 1 is none.
    """
    before = scores[seen.ids]
    scores[seen.ids] = np.where(before > 0, before / penalty, before * penalty)


def penalize_frequency(scores: Row, written: Tally, frequency: float, presence: float) -> None:
    """Lower the score of every id in `written` by `frequency` for each coming, and `presence` once.

    OpenAI's definition.

    Args:
        scores: float32 [vocab_size].
        written: Ids of the text.
        frequency: 0 is none.
        presence: 0 is none.
    """
    scores[written.ids] -= written.counts * np.float32(frequency) + np.float32(presence)


class BadWords:
    """Sequences of ids that must not be completed.

    Args:
        sequences: At least one id each.
        stop_ids: A stop id alone is not taken for a bad word, as in transformers: the text could
            not end.
        ids: What has been read so far.
    """

    def __init__(
        self, sequences: Sequence[Sequence[int]], stop_ids: Collection[int], ids: Iterable[int]
    ) -> None:
        alone = [s[0] for s in sequences if len(s) == 1 and s[0] not in stop_ids]
        self._always = np.array(alone, dtype=np.intp)
        # Last id before the one that completes → all ids before that one, and that one.
        self._after: defaultdict[int, list[tuple[list[int], int]]] = defaultdict(list)
        for sequence in sequences:
            if len(sequence) > 1:
                *before, last = sequence
                self._after[before[-1]].append((before, last))
        self._ids = list(ids)

    def add(self, token_id: int) -> None:
        """Read one id more.

        Args:
            token_id: The next of the text.
        """
        self._ids.append(token_id)

    def forbid(self, scores: Row) -> None:
        """Set the scores of ids that would complete a sequence to minus infinity.

        Args:
            scores: float32 [vocab_size].
        """
        scores[self._always] = -np.inf
        ids = self._ids
        for before, last in self._after.get(ids[-1], ()) if ids else ():
            if ids[-len(before) :] == before:
                scores[last] = -np.inf
