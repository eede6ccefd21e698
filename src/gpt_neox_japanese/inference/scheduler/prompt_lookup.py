"""Guessing the next ids from what was written before, so that several can be scored at once.

What follows the last few ids often followed them before: names, phrases, a quoted line. The network
reads such drafts in little more time than one token, and every id up to the first wrong one is
what it would have chosen anyway (prompt lookup decoding, A. Saxena 2023).
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["MAX_DRAFT", "PromptLookup"]

MAX_DRAFT = 7
"""Ids of a draft: a step with a few rows takes little longer than one with one row."""

_CLUE = 3  # ids that must have occurred before


class PromptLookup:
    """Drafts for one text.

    A draft grows with every one that was right and shrinks with every one that was not.

    Args:
        ids: The prompt.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids: list[int] = []
        self._length = 1
        # Where what followed these ids last time begins; the end of the text itself is not in it.
        self._after: dict[tuple[int, ...], int] = {}
        for token_id in ids:
            self.append(token_id)

    def append(self, token_id: int) -> None:
        """Tell the next id of the text.

        Args:
            token_id: What follows the ids so far.
        """
        if len(self._ids) >= _CLUE:
            self._after[tuple(self._ids[-_CLUE:])] = len(self._ids)
        self._ids.append(token_id)

    def draft(self, max_drafts: int) -> list[int]:
        """The ids that may follow, at most `max_drafts`; empty if these ids are new.

        Args:
            max_drafts: 0 or more.
        """
        begin = self._after.get(tuple(self._ids[-_CLUE:]))
        if begin is None:
            return []
        return self._ids[begin : begin + min(max_drafts, self._length)]

    def learn(self, drafted: int, right: int) -> None:
        """Tell how many ids of the last draft were right.

        Args:
            drafted: How many ids it had.
            right: How many of them were chosen.
        """
        if drafted and right == drafted:
            self._length = min(2 * self._length, MAX_DRAFT)
        elif drafted:
            self._length = max(self._length // 2, 1)
