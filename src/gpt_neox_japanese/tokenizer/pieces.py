"""Choosing the pieces of a vocabulary by the tokens they save.

Segmentation takes, of the forms that fit at a position, the one with the smallest id. A piece whose
prefix has a smaller id can never be taken, so every useful order gives longer pieces smaller ids
than their prefixes, and the rule becomes "the longest piece that fits". That is what is simulated
here, on the script runs of a corpus: which pieces are used how often, what each saves, and which
neighbours would be worth joining.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

__all__ = ["Usage", "choose", "measure"]

_CANDIDATES_PER_PLACE = 4
_KEPT_PER_ROUND = 0.7
_FIRST_EXCHANGE = 0.1
_ROUNDS = 16


@dataclass(frozen=True)
class Usage:
    """How one set of pieces segments the runs: tokens in all, and per piece and neighbours."""

    tokens: int
    used: Counter[str]
    joined: Counter[str]


def choose(runs: Mapping[str, int], fixed: Set[str], places: int) -> Set[str]:
    """Return at most `places` pieces and characters, besides the `fixed` characters.

    Starts from the most frequent candidates, drops what saves least until the rest fits, then
    exchanges the least useful pieces for joined neighbours as long as that saves tokens.

    Args:
        runs: Script run → occurrences.
        fixed: Characters that the vocabulary has in any case.
        places: How many entries to choose.
    """
    pieces = _candidates(runs, _CANDIDATES_PER_PLACE * places) | fixed
    while len(pieces) - len(fixed) > places:
        usage = measure(runs, pieces)
        kept = max(places, int((len(pieces) - len(fixed)) * _KEPT_PER_ROUND))
        pieces = _most_saving(usage, pieces, fixed, kept)

    best, usage = pieces, measure(runs, pieces)
    exchange = _FIRST_EXCHANGE
    for _ in range(_ROUNDS):
        wider = best | set(_top(usage.joined, max(1, int(places * exchange))))
        pieces = _most_saving(measure(runs, wider), wider, fixed, places)
        changed = measure(runs, pieces)
        if changed.tokens < usage.tokens:
            best, usage = pieces, changed
        else:
            exchange /= 2
    return {piece for piece in best if usage.used[piece] or piece in fixed}


def measure(runs: Mapping[str, int], pieces: Set[str]) -> Usage:
    """Segment every run by the longest piece that fits; a missing character costs its bytes."""
    tokens = 0
    used: Counter[str] = Counter()
    joined: Counter[str] = Counter()
    for run, seen in runs.items():
        at, previous = 0, ""
        while at < len(run):
            piece = run[at : at + 3]
            while len(piece) > 1 and piece not in pieces:
                piece = piece[:-1]
            at += len(piece)
            used[piece] += seen
            if len(previous) + len(piece) <= _longest(piece) and previous:
                joined[previous + piece] += seen
            previous = piece
    for piece, seen in used.items():
        if piece in pieces:
            tokens += seen
        else:
            saved = seen * (_cost(piece, pieces) - 1)
            tokens += saved + seen
            joined[piece] += saved
    return Usage(tokens, used, joined)


def _longest(piece: str) -> int:
    """Pieces have three kana or two kanji."""
    return 3 if "ぁ" <= piece[0] <= "ヾ" else 2


def _candidates(runs: Mapping[str, int], most: int) -> set[str]:
    """Return the n-grams that would save most if each stood alone."""
    savings: Counter[str] = Counter()
    for run, seen in runs.items():
        for character in run:
            savings[character] += seen * 2
        for length in range(2, _longest(run) + 1):
            for start in range(len(run) - length + 1):
                savings[run[start : start + length]] += seen * (length - 1)
    return set(_top(savings, most))


def _most_saving(usage: Usage, pieces: Set[str], fixed: Set[str], most: int) -> set[str]:
    """Keep the `most` pieces whose absence would cost the most tokens."""
    savings = {
        piece: usage.used[piece] * (_cost(piece, pieces) - 1)
        for piece in pieces
        if piece not in fixed
    }
    return set(_top(savings, most)) | fixed


def _cost(piece: str, pieces: Set[str]) -> int:
    """Count the tokens of `piece` if it were not in the vocabulary."""
    if len(piece) == 1:
        return len(piece.encode())
    if len(piece) == 3 and (piece[:2] in pieces or piece[1:] in pieces):
        return 2
    return sum(1 if character in pieces else _cost(character, pieces) for character in piece)


def _top(savings: Mapping[str, int], most: int) -> Iterable[str]:
    """Return the `most` keys of largest positive value; ties by text, so the order is fixed."""
    ranked = sorted((item for item in savings.items() if item[1] > 0), key=lambda i: (-i[1], i[0]))
    return [piece for piece, _ in ranked[:most]]
