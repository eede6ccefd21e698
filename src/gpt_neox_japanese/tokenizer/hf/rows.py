"""The rows of a batch: which tokens of which text stand in which row.

A `TokenizedText` is one text and its ids. A `Row` is one line of `input_ids`: a span of one text,
or of two where texts come in pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, product
from typing import Any, NamedTuple, Protocol, cast

from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils.generic import PaddingStrategy

from gpt_neox_japanese.checks import check_integer
from gpt_neox_japanese.errors import TokenizationError
from gpt_neox_japanese.tokenizer.hf.inputs import Text
from gpt_neox_japanese.tokenizer.results import Encoding
from gpt_neox_japanese.tokenizer.special_tokens import AllowedSpecial

__all__ = [
    "Encoder",
    "Padding",
    "Row",
    "TextBatch",
    "TokenizedText",
    "offsets",
    "padded_width",
    "sequence_ids",
    "truncate",
]


class Encoder(Protocol):
    """What gives the ids; see the methods of `Codec`."""

    def encode_batch(
        self, texts: Sequence[str], *, allowed_special: AllowedSpecial
    ) -> list[list[int]]:
        """The ids of texts."""

    def encode_with_offsets(self, text: str, *, allowed_special: AllowedSpecial) -> Encoding:
        """The ids of a text, and where they stand."""


class TokenizedText:
    """One text and its ids.

    Args:
        text: A string, or its words.
        ids: The ids of all of it.
        encoder: What gave the ids.
        allowed_special: What was allowed when it gave them.
    """

    def __init__(
        self, text: Text, ids: list[int], encoder: Encoder, *, allowed_special: AllowedSpecial
    ) -> None:
        self.ids = ids
        self._parts = [text] if isinstance(text, str) else text
        self._is_split = not isinstance(text, str)
        self._encoder = encoder
        self._allowed_special = allowed_special

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """For each id the characters `(start, end)` of the text, or of its word."""
        return self._aligned[0]

    @property
    def words(self) -> Sequence[int | None]:
        """For each id the number of its word; None where the text was not given as words."""
        return self._aligned[1] if self._is_split else [None] * len(self.ids)

    @property
    def surfaces(self) -> list[str]:
        """For each id the characters that it stands for."""
        return [
            self._parts[part][start:end] for (start, end), part in zip(*self._aligned, strict=True)
        ]

    @cached_property
    def _aligned(self) -> tuple[list[tuple[int, int]], list[int]]:
        """For each id its characters and the number of the part they stand in."""
        # Most callers want ids only, so this second pass waits until somebody asks.
        offsets: list[tuple[int, int]] = []
        numbers: list[int] = []
        for number, part in enumerate(self._parts):
            found = self._encoder.encode_with_offsets(part, allowed_special=self._allowed_special)
            offsets += map(tuple, found.offsets.tolist())
            numbers += [number] * len(found.offsets)
        return offsets, numbers


# A text, and the first and the last (excluded) of those of its tokens that a row holds.
Span = tuple[TokenizedText, int, int]
Row = list[Span]


@dataclass(frozen=True)
class Truncation:
    """How samples that are too long are cut.

    Attributes:
        strategy: Which text of a pair is cut.
        max_length: Tokens in a row.
        stride: Tokens that neighbouring rows of one text share.
        side: `"right"` or `"left"`: the end that is cut off.
        keep_rest: Whether rows follow for what was cut off.

    Raises:
        TokenizationError: `stride` does not fit into `max_length`.
    """

    strategy: TruncationStrategy
    max_length: int
    stride: int
    side: str
    keep_rest: bool

    def __post_init__(self) -> None:
        check_integer("stride", self.stride, TokenizationError, minimum=0)
        if self.stride >= max(1, self.max_length):
            raise TokenizationError(
                f"stride={self.stride} does not fit rows of {self.max_length} tokens; it must be"
                " less than that"
            )

    def head(self) -> slice | None:
        """The part of a single text that is left, or None if that takes more than a slice.

        Returns:
            A slice of its ids.
        """
        if self.keep_rest or self.strategy is not TruncationStrategy.LONGEST_FIRST:
            return None
        if self.side == "left" and self.max_length > 0:
            return slice(-self.max_length, None)
        return slice(self.max_length)


class TextBatch:
    """The rows of one call.

    Args:
        samples: One text, or the two of a pair, each.
        encoder: Gives the ids.
        allowed_special: Special tokens that become their ids where a text spells them out.
        truncation: How samples are cut; each is one row if None.

    Raises:
        TokenizationError: A text holds a lone surrogate.
    """

    def __init__(
        self,
        samples: Sequence[tuple[Text, ...]],
        encoder: Encoder,
        *,
        allowed_special: AllowedSpecial,
        truncation: Truncation | None,
    ) -> None:
        self._samples = samples
        self._encoder = encoder
        self._allowed_special = allowed_special
        self._truncation = truncation

    def input_ids(self) -> list[list[int]]:
        """The ids of each row, in lists that belong to the caller.

        Returns:
            A list a row.
        """
        head = self._truncation.head() if self._truncation else slice(None)
        if head and all(len(sample) == 1 for sample in self._samples):
            return [ids[head] for ids in self._encode()]  # there is nothing to arrange
        return [
            [i for source, start, stop in row for i in source.ids[start:stop]] for row in self.rows
        ]

    @cached_property
    def rows(self) -> list[Row]:
        """What stands in each row."""
        return [row for rows in self._rows_of_sample for row in rows]

    @property
    def sample_of_row(self) -> list[int]:
        """The number of the sample that each row was made from."""
        return [number for number, rows in enumerate(self._rows_of_sample) for _ in rows]

    @cached_property
    def _rows_of_sample(self) -> list[list[Row]]:
        ids = iter(self._encode())
        samples = (
            [
                TokenizedText(text, next(ids), self._encoder, allowed_special=self._allowed_special)
                for text in sample
            ]
            for sample in self._samples
        )
        if self._truncation is None:
            return [[[(source, 0, len(source.ids)) for source in sources]] for sources in samples]
        return [truncate(sources, self._truncation) for sources in samples]

    def _encode(self) -> list[list[int]]:
        """The ids of each text, one list after the other."""
        texts = [text for sample in self._samples for text in sample]
        encode = partial(self._encoder.encode_batch, allowed_special=self._allowed_special)
        if all(isinstance(text, str) for text in texts):
            return encode(cast(list[str], texts))
        return [list(chain.from_iterable(encode(words))) for words in texts]


def sequence_ids(row: Row) -> list[int | None]:
    """For each token of a row 0 if the first text holds it, 1 if the second.

    Args:
        row: A row.

    Returns:
        A number a token.
    """
    return [number for number, (_, start, stop) in enumerate(row) for _ in range(start, stop)]


def offsets(row: Row) -> list[tuple[int, int]]:
    """For each token of a row the characters `(start, end)` of its text or word.

    Args:
        row: A row.

    Returns:
        A pair a token.
    """
    return [span for source, start, stop in row for span in source.offsets[start:stop]]


class Padding(NamedTuple):
    """How rows are made equally long.

    Attributes:
        width: Tokens in a row; None leaves rows as they are. Longer rows stay longer.
        side: `"left"` or `"right"`: where filling is put.
    """

    width: int | None
    side: str

    def fill(self, rows: list[list[Any]], filler: Any) -> list[list[Any]]:
        """The rows, filled up to the width.

        Args:
            rows: A list a row.
            filler: What is put in.

        Returns:
            Rows of one width, or the same if there is none.

        Raises:
            TokenizationError: The side is neither "left" nor "right".
        """
        if self.width is None:
            return rows
        if self.side not in ("left", "right"):
            raise TokenizationError(f"padding_side must be 'left' or 'right', not {self.side!r}")
        if self.side == "right":
            return [row + [filler] * (self.width - len(row)) for row in rows]
        return [[filler] * (self.width - len(row)) + row for row in rows]


def padded_width(
    rows: Sequence[Sequence[int]],
    strategy: PaddingStrategy,
    max_length: int | None,
    multiple: int | None,
) -> int | None:
    """The length that rows are padded to, None for no padding.

    Args:
        rows: A list a row.
        strategy: What rows are padded to.
        max_length: For `PaddingStrategy.MAX_LENGTH`.
        multiple: The width is rounded up to a multiple of this, if it is given.

    Returns:
        Tokens in a row.
    """
    if strategy is PaddingStrategy.DO_NOT_PAD:
        return None
    if strategy is PaddingStrategy.MAX_LENGTH and max_length is not None:
        width = max_length
    else:
        width = max(map(len, rows), default=0)
    return -(-width // multiple) * multiple if multiple else width


def truncate(sources: Sequence[TokenizedText], truncation: Truncation) -> list[Row]:
    """The rows that hold one sample, `max_length` tokens each at most.

    The first row is the sample cut to length. The others hold what was cut off, each beginning with
    the last `stride` tokens of the one before. This is how `tokenizers` does it.

    Args:
        sources: One text, or the two of a pair.
        truncation: How they are cut.

    Returns:
        The rows.

    Raises:
        TokenizationError: Cutting as asked leaves nothing, or `stride` leaves no room.
    """
    strategy, max_length = truncation.strategy, truncation.max_length
    lengths = [len(source.ids) for source in sources]
    surplus = sum(lengths) - max_length
    if surplus <= 0 or strategy is TruncationStrategy.DO_NOT_TRUNCATE:
        return [[(source, 0, len(source.ids)) for source in sources]]
    targets = _target_lengths(lengths, strategy, max_length)
    windows = [
        _windows(source, target, truncation.stride, truncation.side)
        for source, target in zip(sources, targets, strict=True)
    ]
    if not truncation.keep_rest:
        return [[next(spans) for spans in windows]]
    if len(windows) == 1:
        return [[window] for window in windows[0]]
    (head, *tail), seconds = map(list, windows)
    cut_off = chain(product(tail, seconds), product([head], seconds[1:]))
    return [[head, seconds[0]], *map(list, cut_off)]


def _target_lengths(
    lengths: Sequence[int], strategy: TruncationStrategy, max_length: int
) -> list[int]:
    """How many tokens each text keeps."""
    surplus = sum(lengths) - max_length
    if strategy is TruncationStrategy.LONGEST_FIRST:
        if len(lengths) == 1:
            return [max_length]
        shorter = min(*lengths, max_length // 2)
        longer = max_length - shorter
        return [shorter, longer] if lengths[0] <= lengths[1] else [longer, shorter]
    index = 0 if strategy is TruncationStrategy.ONLY_FIRST else 1
    if index >= len(lengths):
        raise TokenizationError(
            f"truncation={strategy.value!r} cuts the second text of a pair, and here is only one"
            " text; use truncation='only_first'"
        )
    if lengths[index] <= surplus:
        raise TokenizationError(
            f"truncation={strategy.value!r} would have to cut {surplus} of {lengths[index]} tokens"
            f" to reach max_length={max_length}; raise max_length or use 'longest_first'"
        )
    return [n - surplus if i == index else n for i, n in enumerate(lengths)]


def _windows(source: TokenizedText, width: int, stride: int, side: str) -> Iterator[Span]:
    """Spans of `width` tokens that cover a source, neighbours sharing `stride` of them."""
    length = len(source.ids)
    if 0 < width < length and stride >= width:
        raise TokenizationError(
            f"stride={stride} does not fit the {width} tokens that are left of a text of the pair;"
            " lower it or raise max_length"
        )
    start, stop = 0, min(width, length)
    while True:
        if side == "right":
            yield source, start, stop
        else:
            yield source, length - stop, length - start
        if stop == length or width == 0:
            return
        start += width - stride
        stop = min(start + width, length)
