"""A vocabulary small enough to reason about by hand."""

from __future__ import annotations

from collections.abc import Sequence

from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

TAGS = (
    *("<BR>", "<SP>", "<TAB>", "<URL>", "<EMAIL>", "<TEL>", "<DATE>", "<PRICE>", "<BLOCK>"),
    *("<KIGOU>", "<U2000U2BFF>"),
    *(f"<|emoji{number}|>" for number in range(1, 13)),
    *(f"<|byte{byte}|>" for byte in range(255)),
    *("<|startoftext|>", "<|separator|>", "<|nottoken|>", "<|endoftext|>"),
)
EMOJI = {"😀": "<|emoji1|>", "👍🏽": "<|emoji8|>", "👍": "<|emoji8|>", "👩": "<|emoji8|>"}
EMOJI_INV = {"<|emoji1|>": "😀", "<|emoji8|>": "👍"}


def vocabulary(pieces: Sequence[str], emoji: dict[str, str] | None = None) -> Vocabulary:
    """The pieces, each `form` or `form,variant`, then all tags."""
    lines = [(",",) if piece == "," else tuple(piece.split(",")) for piece in pieces]
    return Vocabulary(
        (*lines, *((tag,) for tag in TAGS)), EMOJI if emoji is None else emoji, EMOJI_INV
    )
