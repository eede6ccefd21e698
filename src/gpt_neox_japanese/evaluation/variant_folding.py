"""What a tokenizer does not tell apart, and a model with it therefore need not predict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from itertools import groupby
from operator import eq, itemgetter

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
        if codec.decode(codec.encode_to_numpy(line)) != line:
            folded += len(line) - _num_kept(codec, line)
    return folded, total


def _num_kept(codec: Codec, line: str) -> int:
    """How many characters come back as they were, each compared with what its own tokens give."""
    ids, offsets = codec.encode_with_offsets(line)
    kept = 0
    tokens = zip(ids.tolist(), map(tuple, offsets.tolist()), strict=True)
    for (start, end), same in groupby(tokens, key=itemgetter(1)):  # the bytes of a character
        text, back = line[start:end], codec.decode([token_id for token_id, _ in same])
        if len(text) == len(back):
            kept += sum(map(eq, text, back))
        else:
            matcher = SequenceMatcher(None, text, back, autojunk=False)
            kept += sum(match.size for match in matcher.get_matching_blocks())
    return kept


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for line in text.splitlines(keepends=True):
            for start in range(0, len(line), _MAX_LINE_CHARACTERS):
                yield line[start : start + _MAX_LINE_CHARACTERS]
