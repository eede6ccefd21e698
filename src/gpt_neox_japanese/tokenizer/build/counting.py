"""Counting a corpus for the vocabulary builder, in bounded memory."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping

__all__ = ["KANJI", "SCRIPT_RUN", "count", "thin"]

# The inside of a regular expression's []. The first of the compatibility kanji, U+F900, is written
# by number: as a character, an editor or a tool that normalizes text would make U+8C48 of it.
KANJI = "々㐀-䶿一-鿿\uf900-\ufaff\U00020000-\U000323af"

SCRIPT_RUN = re.compile(f"[ぁ-ゖゝゞ]+|[ァ-ヺヽヾ][ァ-ヺヽヾー]*|[{KANJI}]+")
"""A run of one script.

Pieces never cross from one script into another, so how often each run occurs is all that choosing
pieces needs. The dashes — and − are read as ー, but a row of them is a line and no word: only a ー
after katakana belongs to a run.
"""

_MAX_RUNS = 4_000_000  # about half a gigabyte


def count(texts: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """Count the characters and the script runs of a corpus.

    Returns:
        Character → occurrences, exact; and run → occurrences, exact for up to four million distinct
        runs. With more of them the rare ones are thinned out, see `thin`.

    Args:
        texts: The corpus.
    """
    characters: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    threshold = 1
    for text in texts:
        characters.update(text)
        runs.update(SCRIPT_RUN.findall(text))
        while len(runs) > _MAX_RUNS:
            threshold *= 2
            runs = thin(runs, threshold)
    return characters, runs


def thin(runs: Mapping[str, int], threshold: int) -> Counter[str]:
    """Drop some rare runs and count the other rare ones up: no expected count changes.

    A run seen fewer than `threshold` times, say n, stays with probability n / threshold and then
    counts as `threshold`. The draws come from a fixed seed: equal corpora give equal tables.

    Args:
        runs: Run → occurrences.
        threshold: Runs seen fewer times than this are thinned out.

    Returns:
        Run → occurrences, of those that stay.
    """
    draw = random.Random(threshold)  # noqa: S311
    thinned: Counter[str] = Counter()
    for run, seen in runs.items():
        if seen >= threshold:
            thinned[run] = seen
        elif draw.random() * threshold < seen:
            thinned[run] = threshold
    return thinned
