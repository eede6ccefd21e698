"""What a vocabulary covers, which of its ids are dead, and how it does on texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.tokenizer.build.counting import KANJI
from gpt_neox_japanese.tokenizer.codec import Codec

__all__ = ["Coverage", "Kind", "TextStatistics", "coverage", "dead_ids", "text_statistics"]

_TAGS = (
    ("bytes", re.compile(r"<\|byte\d+\|>")),
    ("emoji classes", re.compile(r"<\|emoji\d+\|>")),
    ("tags", re.compile(r"<[^<>]{2,}>")),
)
_ADDED = "added tokens"
_TAG_KINDS = frozenset({_ADDED, *(name for name, _ in _TAGS)})
_SCRIPTS = (
    ("hiragana", re.compile("[ぁ-ゖゝゞ]+")),
    ("katakana", re.compile("[ァ-ヺー-ヾ]+")),
    ("kanji", re.compile(f"[{KANJI}]+")),
    ("full-width", re.compile("[！-～]+")),
    ("ASCII", re.compile("[!-~]+")),
)


@dataclass(frozen=True)
class Kind:
    """Ids of one kind, by their canonical forms.

    Attributes:
        name: Such as `2 kanji`, `hiragana` (single characters) or `bytes`.
        ids: How many.
        forms: How many surface forms they have together.
        dead: How many of them no text has; None for tags and added tokens, which texts need not
            have.
    """

    name: str
    ids: int
    forms: int
    dead: int | None


@dataclass(frozen=True)
class Coverage:
    """What a vocabulary holds.

    Attributes:
        ids: Number of ids.
        forms: Number of distinct surface forms.
        emoji: Number of written emoji.
        ordinary: Number of ids that are no tags.
        dead: Number of ordinary ids that no text has.
        kinds: The ids by kind, in order of their first id.
    """

    ids: int
    forms: int
    emoji: int
    ordinary: int
    dead: int
    kinds: tuple[Kind, ...]


@dataclass(frozen=True)
class TextStatistics:
    """How a vocabulary does on some texts.

    Attributes:
        characters: Unicode characters of the texts.
        tokens: Tokens they make.
        characters_per_token: Their ratio; more is better.
        byte_share: The share of tokens that are single bytes.
        used: Number of different ids.
        kind_shares: kind → its share of the tokens.
    """

    characters: int
    tokens: int
    characters_per_token: float
    byte_share: float
    used: int
    kind_shares: dict[str, float]


def coverage(codec: Codec) -> Coverage:
    """Count a vocabulary's ids by kind, and those that no text has.

    Args:
        codec: Has the vocabulary.

    Returns:
        The counts.
    """
    vocabulary = codec.vocabulary
    kinds = _kinds(codec)
    added = len(kinds) - len(vocabulary)
    dead = set(dead_ids(codec).tolist())
    ids, forms, lost = Counter(kinds), Counter[str](), Counter[str]()
    sizes = [*map(len, vocabulary.surfaces), *[1] * added]
    for i, (kind, size) in enumerate(zip(kinds, sizes, strict=True)):
        forms[kind] += size
        lost[kind] += i in dead
    return Coverage(
        ids=len(kinds),
        forms=len(vocabulary.ids) + added,
        emoji=len(vocabulary.emoji),
        ordinary=sum(kind not in _TAG_KINDS for kind in kinds),
        dead=len(dead),
        kinds=tuple(
            Kind(kind, ids[kind], forms[kind], None if kind in _TAG_KINDS else lost[kind])
            for kind in dict.fromkeys(kinds)
        ),
    )


def dead_ids(codec: Codec) -> NDArray[np.int64]:
    """The ids other than tags that no text has, int64 [ids], rising.

    An id is alive if and only if one of its forms, standing alone, becomes that one id. Alone is
    the best a form can do: the shorter forms that it begins with compete in every text, what
    follows can only add longer ones, and an emoji inside it is replaced wherever it stands.

    Args:
        codec: Has the vocabulary.

    Returns:
        int64 [ids].
    """
    surfaces = codec.vocabulary.surfaces
    owners = np.repeat(np.arange(len(surfaces)), [len(forms) for forms in surfaces])
    rows = codec.encode_batch_to_numpy([form for forms in surfaces for form in forms])
    alone = np.diff(rows.bounds) == 1
    made = rows.ids[rows.bounds[:-1][alone]]
    alive = np.array([_kind(forms[0]) in _TAG_KINDS for forms in surfaces])
    alive[made[made == owners[alone]]] = True
    return np.flatnonzero(~alive)


def text_statistics(codec: Codec, texts: Iterable[str]) -> TextStatistics:
    """Encode texts, one by one, and count the tokens by kind.

    Args:
        codec: Encodes them.
        texts: Any strings.

    Returns:
        The counts.

    Raises:
        TokenizationError: A text holds a lone surrogate.
    """
    kinds = _kinds(codec)
    counts = np.zeros(len(kinds), np.int64)
    characters = 0
    for text in texts:
        characters += len(text)
        counts += np.bincount(codec.encode_to_numpy(text), minlength=len(kinds))
    tokens = int(counts.sum())
    by_kind: Counter[str] = Counter()
    for kind, count in zip(kinds, counts.tolist(), strict=True):
        by_kind[kind] += count
    return TextStatistics(
        characters=characters,
        tokens=tokens,
        characters_per_token=characters / max(tokens, 1),
        byte_share=by_kind["bytes"] / max(tokens, 1),
        used=int(np.count_nonzero(counts)),
        kind_shares={kind: count / max(tokens, 1) for kind, count in by_kind.items()},
    )


def _kinds(codec: Codec) -> list[str]:
    kinds = [_kind(forms[0]) for forms in codec.vocabulary.surfaces]
    return kinds + [_ADDED] * (len(codec) - len(kinds))


def _kind(form: str) -> str:
    for name, pattern in _TAGS:
        if pattern.fullmatch(form):
            return name
    script = next((name for name, pattern in _SCRIPTS if pattern.fullmatch(form)), "other")
    return script if len(form) == 1 else f"{len(form)} {script}"
