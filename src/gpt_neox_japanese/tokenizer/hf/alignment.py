"""Which characters a token stands for, as `BatchEncoding` asks it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

__all__ = ["Alignment", "Alignments"]


@dataclass(frozen=True)
class Alignment:
    """One row of a batch; answers what `tokenizers.Encoding` answers.

    All lists have one item a token, padding included. Padding belongs to no sequence.

    Attributes:
        ids: Ids.
        tokens: Tokens as strings.
        offsets: `(start, end)`: characters of the text, or of the word where words were given.
        sequence_ids: 0 for the first text, 1 for the second, None for padding.
        word_ids: Number of the word; None where the text was not given as words.
        n_sequences: 2 for a pair of texts, else 1.
        overflowing: Always empty: what was cut off stands in rows of its own.
    """

    ids: list[int]
    tokens: list[str]
    offsets: list[tuple[int, int]]
    sequence_ids: list[int | None]
    word_ids: list[int | None]
    n_sequences: int
    overflowing: list[Alignment] = field(default_factory=list)

    @property
    def attention_mask(self) -> list[int]:
        """1 for tokens of a text, 0 for padding."""
        return [int(sequence is not None) for sequence in self.sequence_ids]

    @property
    def special_tokens_mask(self) -> list[int]:
        """1 for padding, the only tokens that no text holds."""
        return [int(sequence is None) for sequence in self.sequence_ids]

    @property
    def type_ids(self) -> list[int]:
        """The number of the text; 0 for padding."""
        return [sequence or 0 for sequence in self.sequence_ids]

    def token_to_sequence(self, token: int) -> int | None:
        """The text that a token belongs to.

        Args:
            token: Index of a token in the row.

        Returns:
            0 or 1; None for padding.
        """
        return self.sequence_ids[token] if token < len(self.ids) else None

    def token_to_word(self, token: int) -> int | None:
        """The word that a token belongs to.

        Args:
            token: Index of a token in the row.

        Returns:
            The number of the word; None where there is none.
        """
        return self.word_ids[token] if token < len(self.ids) else None

    def token_to_chars(self, token: int) -> tuple[int, int] | None:
        """The characters that a token stands for.

        Args:
            token: Index of a token in the row.

        Returns:
            `(start, end)`; None for padding.
        """
        return None if self.token_to_sequence(token) is None else self.offsets[token]

    def char_to_token(self, char: int, sequence_index: int = 0) -> int | None:
        """The first token that stands for a character.

        Args:
            char: Index of a character in the text.
            sequence_index: 0 for the first text, 1 for the second.

        Returns:
            Index of the token; None where there is none.
        """
        found = (
            token
            for token, (start, end) in enumerate(self.offsets)
            if start <= char < end and self.sequence_ids[token] == sequence_index
        )
        return next(found, None)

    def char_to_word(self, char: int, sequence_index: int = 0) -> int | None:
        """The word of the first token that stands for a character.

        Args:
            char: Index of a character in the text.
            sequence_index: 0 for the first text, 1 for the second.

        Returns:
            The number of the word; None where there is none.
        """
        token = self.char_to_token(char, sequence_index)
        return None if token is None else self.word_ids[token]

    def word_to_tokens(self, word: int, sequence_index: int = 0) -> tuple[int, int] | None:
        """The tokens `(start, end)` of a word.

        Args:
            word: The number of a word.
            sequence_index: 0 for the first text, 1 for the second.

        Returns:
            `(start, end)`; None where no token belongs to it.
        """
        tokens = [
            token
            for token, found in enumerate(zip(self.sequence_ids, self.word_ids, strict=True))
            if found == (sequence_index, word)
        ]
        return (tokens[0], tokens[-1] + 1) if tokens else None

    def word_to_chars(self, word: int, sequence_index: int = 0) -> tuple[int, int] | None:
        """The characters of a word that its tokens stand for.

        Args:
            word: The number of a word.
            sequence_index: 0 for the first text, 1 for the second.

        Returns:
            `(start, end)`; None where no token belongs to it.
        """
        tokens = self.word_to_tokens(word, sequence_index)
        return tokens and (self.offsets[tokens[0]][0], self.offsets[tokens[1] - 1][1])


class Alignments(Sequence[Alignment]):
    """The alignments of a batch, each made when somebody asks for it.

    Args:
        count: Rows in the batch.
        make: Gives the alignment of a row.
    """

    def __init__(self, count: int, make: Callable[[int], Alignment]) -> None:
        self._count = count
        self._make = make
        self._made: dict[int, Alignment] = {}

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Alignment: ...

    @overload
    def __getitem__(self, index: slice) -> list[Alignment]: ...

    def __getitem__(self, index: int | slice) -> Alignment | list[Alignment]:
        rows = range(self._count)[index]
        if isinstance(rows, range):
            return [self[row] for row in rows]
        if rows not in self._made:
            self._made[rows] = self._make(rows)
        return self._made[rows]

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)
