"""Text to ids: added and special tokens first; the vocabulary encodes what lies between."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import TokenizationError
from gpt_neox_japanese.tokenizer.added_tokens import Segment, TokenFinder
from gpt_neox_japanese.tokenizer.encoding.batching import cut_between_lines, map_in_threads
from gpt_neox_japanese.tokenizer.encoding.vocabulary_encoder import (
    Buffer,
    VocabularyEncoder,
    check_dropout,
    from_utf8,
    to_utf8,
)
from gpt_neox_japanese.tokenizer.results import Encoding, Ragged
from gpt_neox_japanese.tokenizer.special_tokens import (
    AllowedSpecial,
    DisallowedSpecial,
    SpecialTokens,
)

__all__ = ["TextEncoder"]


class TextEncoder:
    """Encodes texts that may spell added tokens. Threads may share it.

    Its methods and their arguments are those of `Codec`, which see.

    Args:
        encoder: Encodes everything else.
        special: What is looked for.
    """

    def __init__(self, encoder: VocabularyEncoder, special: SpecialTokens) -> None:
        self._encoder = encoder
        self._special = special
        self._finds_nothing = not special.ordinary.tokens  # in a text without special tokens

    def encode(
        self,
        text: str,
        allowed: AllowedSpecial,
        disallowed: DisallowedSpecial,
        dropout: float,
        seed: int | None,
    ) -> NDArray[np.int32]:
        """The ids of a text, int32 [tokens].

        Args:
            text: Any string of Unicode scalar values.
            allowed: Special tokens that become their ids, or "all".
            disallowed: Special tokens that are an error, or "all".
            dropout: How likely a piece is dropped, 0 to 1; 0 for none.
            seed: Makes dropout repeatable; None draws anew.

        Raises:
            TokenizationError: The text holds a lone surrogate or a disallowed token, or an option
                makes no sense.
        """
        if dropout or seed is not None:
            check_dropout(dropout, seed)
        if self._finds_nothing and not (allowed or disallowed):
            return self._encoder.encode(text, dropout=dropout, seed=seed)
        finder, tags = self._policy((text,), allowed, disallowed)
        return self._encode(text, finder, tags, dropout, seed)

    def encode_with_offsets(
        self, text: str, allowed: AllowedSpecial, disallowed: DisallowedSpecial
    ) -> Encoding:
        """The ids of a text and, for each, the characters that it stands for.

        Args:
            text: Any string of Unicode scalar values.
            allowed: Special tokens that become their ids, or "all".
            disallowed: Special tokens that are an error, or "all".

        Returns:
            `ids`, int32 [tokens], and `offsets`, int32 [tokens, 2].

        Raises:
            TokenizationError: The text holds a lone surrogate or a disallowed token, or an option
                makes no sense.
        """
        finder, tags = self._policy((text,), allowed, disallowed)
        segments = _cut(text, finder)
        if not segments:
            return self._encoder.encode_with_offsets(text, allow_tags=tags)
        ids, offsets = [], []
        for start, end, token_id in segments:
            if token_id is None:
                part = self._encoder.encode_with_offsets(text[start:end], allow_tags=tags)
                ids.append(part.ids)
                offsets.append(part.offsets + np.int32(start))
            else:
                ids.append(np.array([token_id], dtype=np.int32))
                offsets.append(np.array([(start, end)], dtype=np.int32))
        return Encoding(np.concatenate(ids), np.concatenate(offsets))

    def encode_batch(
        self,
        texts: Sequence[str],
        allowed: AllowedSpecial,
        disallowed: DisallowedSpecial,
        num_threads: int | None,
    ) -> Ragged:
        """The ids of many texts at once.

        Args:
            texts: Strings of Unicode scalar values.
            allowed: Special tokens that become their ids, or "all".
            disallowed: Special tokens that are an error, or "all".
            num_threads: How many threads to use; one for each usable core if None.

        Returns:
            `ids`, int32 [tokens of all texts], and `bounds`, int64 [texts + 1].

        Raises:
            TokenizationError: A text holds a lone surrogate or a disallowed token, or an option
                makes no sense.
        """
        try:
            return self._encode_batch(texts, allowed, disallowed, num_threads)
        except TokenizationError:
            for number, text in enumerate(texts):
                to_utf8(text, f"texts[{number}]")  # so that the error names the text
            raise

    def _encode_batch(
        self,
        texts: Sequence[str],
        allowed: AllowedSpecial,
        disallowed: DisallowedSpecial,
        num_threads: int | None,
    ) -> Ragged:
        finder, tags = self._policy(texts, allowed, disallowed)
        segments: list[list[Segment]] = []
        if finder.may_occur(texts):
            segments = [_cut(text, finder) for text in texts]
        if not any(segments):
            return self._encoder.encode_batch(texts, allow_tags=tags, num_threads=num_threads)
        whole = [
            parts or [Segment(0, len(t), None)] for t, parts in zip(texts, segments, strict=True)
        ]
        between = [
            text[start:end]
            for text, parts in zip(texts, whole, strict=True)
            for start, end, token_id in parts
            if token_id is None
        ]
        encoded = iter(
            self._encoder.encode_batch(between, allow_tags=tags, num_threads=num_threads)
        )
        bounds = np.zeros(len(texts) + 1, dtype=np.int64)
        rows: list[NDArray[np.int32]] = []
        for number, parts in enumerate(whole):
            row = [
                next(encoded) if token_id is None else np.array([token_id], dtype=np.int32)
                for _, _, token_id in parts
            ]
            bounds[number + 1] = bounds[number] + sum(map(len, row))
            rows += row
        return Ragged(np.concatenate(rows), bounds)

    def encode_bytes(
        self,
        data: Buffer,
        allowed: AllowedSpecial,
        disallowed: DisallowedSpecial,
        num_threads: int | None,
    ) -> NDArray[np.int32]:
        """The ids of a UTF-8 text; no string is made of it unless that is needed.

        Args:
            data: UTF-8, without a byte order mark.
            allowed: Special tokens that become their ids, or "all".
            disallowed: Special tokens that are an error, or "all".
            num_threads: How many threads to use; one for each usable core if None.

        Returns:
            int32 [tokens].

        Raises:
            TokenizationError: The bytes are not UTF-8, the text holds a disallowed token, or an
                option makes no sense.
        """
        array = np.frombuffer(data, dtype=np.uint8)
        texts = (from_utf8(array),) if disallowed else ()
        finder, tags = self._policy(texts, allowed, disallowed)
        if not finder.tokens:
            return self._encoder.encode_bytes(data, allow_tags=tags, num_threads=num_threads)
        if self._encoder.clean or finder.may_cross_lines:
            return self._encode(from_utf8(array), finder, tags)

        def encode(task: slice) -> NDArray[np.int32]:
            return self._encode(from_utf8(array, task), finder, tags)

        parts = map_in_threads(encode, cut_between_lines(array), num_threads)
        return np.concatenate([np.empty(0, dtype=np.int32), *parts])

    def _policy(
        self, texts: Sequence[str], allowed: AllowedSpecial, disallowed: DisallowedSpecial
    ) -> tuple[TokenFinder, bool]:
        """Check texts; return what to look for in them and whether to read any tag."""
        if disallowed:
            self._special.refuse(texts, disallowed, allowed)
        if not allowed:
            return self._special.ordinary, False
        if allowed == "all":
            return self._special.all, True
        return self._special.finder(allowed), False

    def _encode(
        self,
        text: str,
        finder: TokenFinder,
        tags: bool,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> NDArray[np.int32]:
        segments = _cut(text, finder)
        if not segments:
            return self._encoder.encode(text, allow_tags=tags, dropout=dropout, seed=seed)
        rows = (
            self._encoder.encode(
                text[start:end],
                allow_tags=tags,
                dropout=dropout,
                seed=_seed_of_part(seed, number) if dropout else None,
            )
            if token_id is None
            else [token_id]
            for number, (start, end, token_id) in enumerate(segments)
        )
        return np.fromiter(chain.from_iterable(rows), dtype=np.int32)


def _cut(text: str, finder: TokenFinder) -> list[Segment]:
    """The text cut at the tokens that it spells; empty if it spells none."""
    segments = finder.split(text) if finder.tokens else []
    if segments:
        to_utf8(text)  # so that an error names the place in the whole text
    return segments


def _seed_of_part(seed: int | None, number: int) -> int | None:
    if seed is None:
        return None
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
