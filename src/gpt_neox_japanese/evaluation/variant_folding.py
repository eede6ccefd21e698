"""What a tokenizer does not tell apart, and a model with it therefore need not predict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher

from gpt_neox_japanese.tokenizer.codec import Codec

__all__ = ["folded_characters"]

# Lines are compared one by one; matching is quadratic.
_MAX_LINE_CHARACTERS = 1000


def folded_characters(codec: Codec, texts: Iterable[str]) -> tuple[int, int]:
    """Count the characters of some texts that are decoded as others: variants, rare symbols.

    Bits per character count them as characters, although nothing of their difference is predicted.
    Two tokenizers are comparable as far as this fraction is small for both.

    Args:
        codec: The tokenizer.
        texts: Read one by one.

    Returns:
        The number of folded characters and of all characters.

    Raises:
        TokenizationError: A text holds a lone surrogate.
    """
    folded = total = 0
    for line in _lines(texts):
        total += len(line)
        back = codec.decode(codec.encode_to_numpy(line))
        if back == line:
            continue
        if len(back) == len(line):
            folded += sum(a != b for a, b in zip(line, back, strict=True))
        else:
            matcher = SequenceMatcher(None, line, back, autojunk=False)
            folded += len(line) - sum(match.size for match in matcher.get_matching_blocks())
    return folded, total


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for line in text.splitlines(keepends=True):
            for start in range(0, len(line), _MAX_LINE_CHARACTERS):
                yield line[start : start + _MAX_LINE_CHARACTERS]
