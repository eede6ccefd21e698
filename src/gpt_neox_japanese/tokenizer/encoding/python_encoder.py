"""Segmentation in plain Python: the algorithm as one reads it.

It encodes short texts, before the compiled kernel is loaded, and is what the kernel must equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from gpt_neox_japanese.errors import TokenizationError
from gpt_neox_japanese.tokenizer.encoding.normalization import Normalizer
from gpt_neox_japanese.tokenizer.results import Encoding

__all__ = ["LONGEST_PIECE", "SYMBOL_CLASSES", "PythonEncoder", "byte_ids", "xorshift32"]

LONGEST_PIECE = 3

# Characters that are symbols in a broad sense share a tag. The ranges are the published ones.
SYMBOL_CLASSES = {
    "<KIGOU>": (
        range(0x00A1, 0x00C0),  # Latin-1 punctuation
        range(0x01C0, 0x01C4),  # clicks
        range(0x02B9, 0x0363),  # modifier letters and accents
    ),
    "<U2000U2BFF>": (range(0x2000, 0x2C00),),  # general punctuation to symbols and arrows
}


class PythonEncoder:
    """Text to ids, one readable step at a time.

    Args:
        forms: Surface form → id.
        emoji: Written emoji → class tag, in order of replacement.
        unknown_id: Stands for bytes without an id.
        legacy: Give exactly the ids of transformers' tokenizer.
        clean: Replace URLs, addresses, dates, prices and box drawing by tags.
    """

    def __init__(
        self,
        forms: Mapping[str, int],
        emoji: Mapping[str, str],
        *,
        unknown_id: int,
        legacy: bool,
        clean: bool,
    ) -> None:
        self._normalize = Normalizer(emoji, legacy=legacy, clean=clean)
        self._forms = forms
        self._longest_tag = max(map(len, forms))
        self._byte_ids = byte_ids(forms, unknown_id)

    def encode(
        self, text: str, *, allow_tags: bool = False, dropout_threshold: int = 0, rng_state: int = 1
    ) -> Encoding:
        """Encode one text.

        Args:
            text: Any string of Unicode scalar values.
            allow_tags: Whether tags spelled out in the text (`<|endoftext|>`, `<BR>`) become their
                control ids, as in transformers. Otherwise they are text like any other.
            dropout_threshold: Probability, times 2**32, with which the best candidate is dropped
                for another one, wherever there is another one.
            rng_state: What the random numbers for that begin from, 1 to 2**32 - 1.

        Returns:
            The ids, and the characters that each stands for.

        Raises:
            TokenizationError: The text holds a lone surrogate.
        """
        random = xorshift32(rng_state)
        symbols, starts = self._normalize(text)
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        position = 0
        while position < len(symbols):
            token_ids, length = self._tag(symbols, position, allow_tags=allow_tags)
            if not length:
                candidates = self._candidates(symbols, position)
                if len(candidates) > 1 and dropout_threshold and next(random) < dropout_threshold:
                    del candidates[0]
                    if len(candidates) > 1:
                        del candidates[next(random) & 1]
                token_ids, length = (
                    candidates[0] if candidates else self._fallback(symbols[position])
                )
            ids += token_ids
            offsets += [(starts[position], starts[position + length])] * len(token_ids)
            position += length
        return Encoding(
            np.array(ids, dtype=np.int32), np.array(offsets, dtype=np.int32).reshape(-1, 2)
        )

    def _tag(self, symbols: list[str], position: int, *, allow_tags: bool) -> tuple[list[int], int]:
        """The tag at `position`, written by normalization or, if allowed, spelled out there."""
        symbol = symbols[position]
        if len(symbol) > 1:
            return [self._forms[symbol]], 1
        if symbol == "<" and allow_tags:
            run = _run_of_characters(symbols, position, self._longest_tag)
            for length in range(len(run), LONGEST_PIECE - 1, -1):
                if run[:length] in self._forms:
                    return [self._forms[run[:length]]], length
        return [], 0

    def _candidates(self, symbols: list[str], position: int) -> list[tuple[list[int], int]]:
        """The forms that begin at `position`, best first: their ids and lengths.

        The smallest id wins, whatever its length. That is the published behaviour.
        """
        run = _run_of_characters(symbols, position, LONGEST_PIECE)
        if run[0] == "<":
            run = run[: LONGEST_PIECE - 1]  # longer ones are tags, and those were not asked for
        lengths = [length for length in range(len(run), 0, -1) if run[:length] in self._forms]
        return sorted(
            (([self._forms[run[:length]]], length) for length in lengths),
            key=lambda candidate: candidate[0],
        )

    def _fallback(self, character: str) -> tuple[list[int], int]:
        """Ids of a character that has no entry: its symbol class, or its UTF-8 bytes."""
        for tag, spans in SYMBOL_CLASSES.items():
            if any(ord(character) in span for span in spans):
                return [self._forms[tag]], 1
        try:
            data = character.encode()
        except UnicodeEncodeError as error:
            raise TokenizationError(
                f"the text holds a lone surrogate, U+{ord(character):04X}; decode its bytes with"
                " errors='replace' first"
            ) from error
        return [self._byte_ids[byte] for byte in data], 1


def byte_ids(forms: Mapping[str, int], unknown_id: int) -> list[int]:
    """The id of every byte.

    Args:
        forms: Surface form → id.
        unknown_id: Stands for bytes without an id.

    Returns:
        256 ids.
    """
    return [forms.get(f"<|byte{byte}|>", unknown_id) for byte in range(256)]


def xorshift32(rng_state: int) -> Iterator[int]:
    """Numbers below 2**32 that look random: Marsaglia's xorshift, which needs no wide products.

    Args:
        rng_state: What they begin from, 1 to 2**32 - 1.

    Yields:
        Numbers of 1 to 2**32 - 1.
    """
    while True:
        rng_state ^= (rng_state << 13) & 0xFFFFFFFF
        rng_state ^= rng_state >> 17
        rng_state ^= (rng_state << 5) & 0xFFFFFFFF
        yield rng_state


def _run_of_characters(symbols: list[str], position: int, longest: int) -> str:
    """The characters from `position` on, up to a tag that normalization wrote."""
    run = ""
    for symbol in symbols[position : position + longest]:
        if len(symbol) > 1:
            break
        run += symbol
    return run
