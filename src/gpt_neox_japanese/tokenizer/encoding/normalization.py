"""From a string to symbols: spaces, line breaks, dashes, emoji, and optional cleaning.

A symbol is either one character of the text or a whole tag that stands for some of its characters:
`"猫 🐯"` becomes `["猫", "<SP>", "<|emoji4|>"]`. Because a tag is one symbol, a tag that the text
really spells out (`"<SP>"`, four symbols) is never mistaken for one that we wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gpt_neox_japanese.tokenizer.encoding.cleaning import find_cleanable

__all__ = [
    "BARRIER",
    "DASHES",
    "JOINER",
    "MODIFIERS",
    "REPLACED",
    "SPACES",
    "Normalizer",
    "Symbols",
]

SPACES = {" ": "<SP>", "\u3000": "<SP>", "\n": "<BR>", "\r": "<BR>", "\t": "<TAB>"}
DASHES = {"\u2014": "ー", "\u2212": "ー"}  # em dash and minus sign, both written for a long vowel
REPLACED = {**SPACES, **DASHES}

# Stands for one tag while emoji and cleanable spans are searched. No rule matches it.
BARRIER = "\0"

JOINER = "\u200d"

# What changes the emoji before it and shows nothing of its own.
MODIFIERS = frozenset(
    [
        *(JOINER, "\u20e3", "\ufe0e", "\ufe0f"),  # joiner, keycap, text style, emoji style
        *map(chr, range(0x1F3FB, 0x1F400)),  # skin tones
        *map(chr, range(0xE0020, 0xE0080)),  # tags, as in the flag of Scotland
    ]
)


class Symbols(NamedTuple):
    """A normalized text.

    Attributes:
        values: The symbols, in order.
        starts: `values[i]` stands for the characters `starts[i]` to `starts[i + 1]` of the source;
            one longer than `values`.
    """

    values: list[str]
    starts: list[int]


class _Span(NamedTuple):
    """Symbols `start` to `end` that are about to become one `tag`."""

    start: int
    end: int
    tag: str


class Normalizer:
    """Turns texts into symbols.

    Args:
        emoji: written emoji → class tag, in order of replacement.
        legacy: Replace emoji exactly as transformers does. Otherwise skin tones, variation
            selectors and joined sequences (👍🏽, 👨‍👩‍👧) belong to one tag.
        clean: Replace URLs, addresses, dates, prices and box drawing by tags as well.
    """

    def __init__(self, emoji: Mapping[str, str], *, legacy: bool, clean: bool) -> None:
        self._legacy = legacy
        self._clean = clean
        self._emoji: dict[str, list[tuple[int, str, str]]] = {}
        for rank, (key, tag) in enumerate(emoji.items()):
            # Spaces and dashes are gone before emoji are looked for, so such a key never matches.
            if not any(character in REPLACED or character == BARRIER for character in key):
                self._emoji.setdefault(key[0], []).append((rank, key, tag))

    def __call__(self, text: str) -> Symbols:
        """Return the symbols of `text`; linear in its length but for a sort of its emoji."""
        symbols = _replace_characters(text)
        symbols = _replace_spans(symbols, self._find_emoji(_plain(symbols)))
        if self._clean:
            found = find_cleanable(_plain(symbols), legacy=self._legacy)
            symbols = _replace_spans(symbols, (_Span(*span) for span in found))
        return symbols

    def _find_emoji(self, plain: str) -> list[_Span]:
        """The emoji of a text, as one replacement after the other in the table's order finds them.

        Replacing key after key in the whole text gives each occurrence to the earliest key, and
        among occurrences of one key to the leftmost. So: list all of them, take them in that
        order, skip what overlaps one already taken.
        """
        occurrences = [
            (rank, start, _Span(start, start + len(key), tag))
            for start, character in enumerate(plain)
            if character in self._emoji
            for rank, key, tag in self._emoji[character]
            if plain.startswith(key, start)
        ]
        taken = bytearray(len(plain))
        chosen = []
        for _, _, span in sorted(occurrences):
            if not any(taken[span.start : span.end]):
                taken[span.start : span.end] = b"\1" * (span.end - span.start)
                chosen.append(span)
        chosen.sort()
        return chosen if self._legacy else _join_sequences(chosen, plain)


def _replace_characters(text: str) -> Symbols:
    values: list[str] = []
    starts: list[int] = []
    for index, character in enumerate(text):
        if character == "\n" and index and text[index - 1] == "\r":
            continue  # CRLF is one break, written at its CR
        values.append(REPLACED.get(character, character))
        starts.append(index)
    starts.append(len(text))
    return Symbols(values, starts)


def _plain(symbols: Symbols) -> str:
    """One character a symbol, so that positions in the string are positions in the symbols."""
    return "".join(value if len(value) == 1 else BARRIER for value in symbols.values)


def _replace_spans(symbols: Symbols, spans: Iterable[_Span]) -> Symbols:
    """Put one tag in the place of each span. Spans are in order and do not overlap."""
    values: list[str] = []
    starts: list[int] = []
    done = 0
    for span in spans:
        values += symbols.values[done : span.start]
        starts += symbols.starts[done : span.start]
        values.append(span.tag)
        starts.append(symbols.starts[span.start])
        done = span.end
    values += symbols.values[done:]
    starts += symbols.starts[done:]
    return Symbols(values, starts)


def _join_sequences(spans: Iterable[_Span], plain: str) -> list[_Span]:
    """Let each emoji take its modifiers, and what is joined to it, under the tag it begins with."""
    joined: list[_Span] = []
    for span in spans:
        before = joined[-1] if joined else None
        if before and span.start < before.end:
            continue  # a modifier that the table also lists as an emoji
        end = span.end
        while end < len(plain) and plain[end] in MODIFIERS:
            end += 1
        if before and before.end == span.start and plain[span.start - 1] == JOINER:
            joined[-1] = before._replace(end=end)
        else:
            joined.append(span._replace(end=end))
    return joined
