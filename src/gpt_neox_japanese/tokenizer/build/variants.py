"""Families of one character: the forms that share one id.

A family gathers the ways in which one character may be written: 応 and 應, ア and ｱ, １ and ①, 雨
and the radical ⾬. Full-width Ａ and ASCII A are *not* one family: the published vocabulary keeps
them apart, and so does this one.

Widths, circles and compatibility twins come from `unicodedata`; old and new kanji come from yosina,
which is needed only for building.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable, Iterator, Mapping

from gpt_neox_japanese.errors import VocabularyError

__all__ = ["Families", "modern_kanji"]

# Blocks whose characters only repeat others in another shape.
_ENCLOSED_LETTERS = range(0x2460, 0x2500)
_ENCLOSED_KANJI_AND_KANA = range(0x3200, 0x3300)
_REPEATING_BLOCKS = (
    _ENCLOSED_LETTERS,
    _ENCLOSED_KANJI_AND_KANA,
    range(0x2E80, 0x2FE0),  # radicals
    range(0xF900, 0xFB00),  # compatibility kanji
    range(0xFF61, 0xFF9E),  # half-width punctuation and katakana
    range(0x2F800, 0x2FA20),  # more compatibility kanji
)
_KANJI = range(0x4E00, 0xA000)
_FULL_WIDTH_OFFSET = 0xFEE0
_LONGEST_FORM = 3
_MAX_FORMS = 16
_HALF_WIDTH_KATAKANA = {
    unicodedata.normalize("NFKC", chr(code)): chr(code) for code in range(0xFF66, 0xFFA0)
}


def modern_kanji() -> Callable[[str], str]:
    """Return the function that turns old kanji into new ones (國 → 国).

    Raises:
        VocabularyError: yosina is not installed.
    """
    try:
        from yosina import make_transliterator
    except ImportError:
        raise VocabularyError(
            "building a vocabulary needs the table of old and new kanji of the package yosina: "
            "pip install 'gpt-neox-japanese[vocab]'"
        ) from None
    # yosina tells the shapes of a kanji apart by variation selectors: add them, convert, drop them.
    return make_transliterator(
        [
            ("ivs-svs-base", {"mode": "ivs-or-svs", "charset": "unijis_2004"}),
            ("kanji-old-new", {}),
            ("ivs-svs-base", {"mode": "base", "charset": "unijis_2004"}),
        ]
    )


class Families:
    """Which characters are one, and by which member each family is called.

    A family is called by its most frequent member, so that decoding changes as few characters of
    such a corpus as possible.
    """

    def __init__(self, counts: Mapping[str, int], modernise: Callable[[str], str]) -> None:
        """Group the known variants; `counts` (character → occurrences) decides their order."""
        groups: dict[str, set[str]] = {}
        for character in map(chr, itertools.chain(_KANJI, *_REPEATING_BLOCKS)):
            plain = modernise(_plain(character))
            if plain != character and len(plain) == 1:
                groups.setdefault(plain, {plain}).add(character)
        self._members: dict[str, tuple[str, ...]] = {}
        self._head_of: dict[int, str] = {}
        for plain, group in groups.items():
            members = sorted(group, key=lambda c: (-counts.get(c, 0), c != plain, c))
            self._members[members[0]] = tuple(members)
            self._head_of |= {ord(member): members[0] for member in members[1:]}

    def fold(self, text: str) -> str:
        """Replace every character by the name of its family; the length stays.

        Args:
            text: Any string.

        Returns:
            The folded text.
        """
        return text.translate(self._head_of)

    def forms(self, piece: str) -> tuple[str, ...]:
        """Return the ways to write a folded piece, the piece itself first.

        Within a longer piece kanji combine freely (慶応, 慶應) and kana change width together
        (アイ, ｱｲ); circles, which do not form words, are for single characters. Segmentation looks
        at three characters, so longer forms are left out, as are combinations after the sixteenth.

        Args:
            piece: A folded piece.

        Returns:
            The forms.
        """
        members = [self._members.get(character, (character,)) for character in piece]
        written: Iterator[str] = map("".join, itertools.product(*members))
        if len(piece) > 1 and "ァ" <= piece[0] <= "ヾ":
            written = iter((piece,))
        elif len(piece) > 1:
            written = (form for form in written if not any(map(_is_enclosed, form)))
        forms = dict.fromkeys((piece, *itertools.islice(written, _MAX_FORMS), _half_width(piece)))
        return tuple(form for form in forms if 0 < len(form) <= _LONGEST_FORM)


def _is_enclosed(character: str) -> bool:
    return ord(character) in _ENCLOSED_LETTERS or ord(character) in _ENCLOSED_KANJI_AND_KANA


def _plain(character: str) -> str:
    """Undo a circle, half width or a twin: ㊫ → 学, ｱ → ア, and as published ① → １."""
    if not any(ord(character) in block for block in _REPEATING_BLOCKS):
        return character
    plain = unicodedata.normalize("NFKC", character)
    if len(plain) == 1 and plain.isascii():
        return chr(ord(plain) + _FULL_WIDTH_OFFSET)
    return plain


def _half_width(piece: str) -> str:
    """Write katakana at half width (ガ → ｶﾞ); empty where a character has no such form."""
    decomposed = unicodedata.normalize("NFD", piece)
    narrow = [_HALF_WIDTH_KATAKANA.get(character, "") for character in decomposed]
    return "".join(narrow) if all(narrow) else ""
