"""Choosing the pieces of a vocabulary by the tokens they save.

Segmentation takes, of the forms that fit at a position, the one with the smallest id. A piece whose
prefix has a smaller id can never be taken, so every useful order gives longer pieces smaller ids
than their prefixes, and the rule becomes "the longest piece that fits". That is what is simulated
here, on the script runs of a corpus: which pieces are used how often, what each saves, and which
neighbours would be worth joining.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass

__all__ = ["PieceUsage", "measure_usage", "select_pieces"]

_CANDIDATES_PER_PIECE = 4
_KEPT_PER_ROUND = 0.7
_FIRST_EXCHANGE = 0.1


@dataclass(frozen=True)
class PieceUsage:
    """How one set of pieces segments the runs of a corpus.

    Attributes:
        tokens: Tokens in all.
        used: Piece → how often it is produced.
        joined: Missing piece → about how many tokens it would save, being what two neighbours
            together spell, or a character that is written in bytes.
    """

    tokens: int
    used: Counter[str]
    joined: Counter[str]


def select_pieces(runs: Mapping[str, int], fixed: Set[str], num_pieces: int) -> Set[str]:
    """Return the `fixed` characters and up to `num_pieces` other pieces and characters.

    Starts from four times too many, drops what saves least until the rest fits, then exchanges the
    least useful ones for joined neighbours, fewer and fewer, wherever that saves tokens. A piece
    that would be used once is none: a model could not learn what it is.

    Args:
        runs: Script run → occurrences.
        fixed: Characters that the vocabulary has in any case.
        num_pieces: How many entries to choose.

    Returns:
        The fixed characters and the chosen pieces.
    """
    pieces = _candidates(runs, fixed, _CANDIDATES_PER_PIECE * num_pieces) | fixed
    while len(pieces) - len(fixed) > num_pieces:
        usage = measure_usage(runs, pieces)
        kept = max(num_pieces, int((len(pieces) - len(fixed)) * _KEPT_PER_ROUND))
        pieces = _most_saving(usage, pieces, fixed, kept)

    usage = measure_usage(runs, pieces)
    exchanged = int(num_pieces * _FIRST_EXCHANGE)
    while exchanged:
        wider = pieces | _top(usage.joined, exchanged)
        changed = _most_saving(measure_usage(runs, wider), wider, fixed, num_pieces)
        changed_usage = measure_usage(runs, changed)
        if changed_usage.tokens < usage.tokens:
            pieces, usage = changed, changed_usage
        exchanged //= 2
    return {piece for piece in pieces if usage.used[piece] >= min(len(piece), 2)} | fixed


def measure_usage(runs: Mapping[str, int], pieces: Set[str]) -> PieceUsage:
    """Segment every run by the longest piece that fits; a missing character costs its bytes.

    Args:
        runs: Script run → occurrences.
        pieces: What the vocabulary holds.

    Returns:
        How many tokens there are, and what each piece does for it.
    """
    used: Counter[str] = Counter()
    joined: Counter[str] = Counter()
    for run, seen in runs.items():
        at, previous = 0, ""
        longest = _longest_piece(run)
        while at < len(run):
            piece = run[at : at + longest]
            while len(piece) > 1 and piece not in pieces:
                piece = piece[:-1]
            used[piece] += seen
            if previous and len(previous) + len(piece) <= longest:
                joined[previous + piece] += seen
            at, previous = at + len(piece), piece
    tokens = used.total()
    for piece in used.keys() - pieces:
        more = used[piece] * (_cost_without(piece, pieces) - 1)
        tokens += more
        joined[piece] += more
    return PieceUsage(tokens, used, joined)


def _longest_piece(run: str) -> int:
    """Pieces have up to three kana or two kanji."""
    return 3 if "ぁ" <= run[0] <= "ヾ" else 2


def _candidates(runs: Mapping[str, int], fixed: Set[str], max_pieces: int) -> set[str]:
    """Return the n-grams outside `fixed` that would save most if each were the only one."""
    savings: Counter[str] = Counter()
    for run, seen in runs.items():
        for character in run:
            savings[character] += seen * (len(character.encode()) - 1)
        for length in range(2, _longest_piece(run) + 1):
            for start in range(len(run) - length + 1):
                savings[run[start : start + length]] += seen * (length - 1)
    for character in fixed:
        del savings[character]
    return _top(savings, max_pieces)


def _most_saving(usage: PieceUsage, pieces: Set[str], fixed: Set[str], max_pieces: int) -> set[str]:
    """Keep `fixed` and the `max_pieces` other pieces whose absence would cost the most tokens."""
    savings = {
        piece: usage.used[piece] * (_cost_without(piece, pieces) - 1) for piece in pieces - fixed
    }
    return _top(savings, max_pieces) | fixed


def _cost_without(piece: str, pieces: Set[str]) -> int:
    """Count the tokens of `piece` if it were not in the vocabulary."""
    if len(piece) == 1:
        return len(piece.encode())
    cut = len(piece) - 1 if piece[:-1] in pieces else 1
    return sum(
        1 if part in pieces else _cost_without(part, pieces) for part in (piece[:cut], piece[cut:])
    )


def _top(savings: Mapping[str, int], max_pieces: int) -> set[str]:
    """Return the keys of the largest positive values, among equals the first by code point."""
    positive = [item for item in savings.items() if item[1] > 0]
    return {
        piece for piece, _ in sorted(positive, key=lambda item: (-item[1], item[0]))[:max_pieces]
    }
