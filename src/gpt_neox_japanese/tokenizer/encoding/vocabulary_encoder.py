"""Text to ids by `vocab.txt` alone: in plain Python until the compiled kernel is worth loading."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from functools import cached_property
from types import ModuleType
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.checks import check_integer, check_number
from gpt_neox_japanese.errors import TokenizationError, VocabularyError
from gpt_neox_japanese.tokenizer.added_tokens import AddedTokens
from gpt_neox_japanese.tokenizer.encoding.batching import (
    concatenate,
    cut_between_lines,
    cut_between_texts,
    map_in_threads,
)
from gpt_neox_japanese.tokenizer.encoding.cleaning import find_cleanable
from gpt_neox_japanese.tokenizer.encoding.python_encoder import PythonEncoder
from gpt_neox_japanese.tokenizer.kernels.tables import build_tables
from gpt_neox_japanese.tokenizer.results import Encoding, Ragged
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

__all__ = [
    "JIT_THRESHOLD",
    "NO_ID",
    "Buffer",
    "VocabularyEncoder",
    "check_dropout",
    "dropout_draws",
    "find_unknown_id",
    "from_utf8",
    "to_utf8",
]

Buffer = bytes | bytearray | memoryview | mmap.mmap | NDArray[np.uint8]

JIT_THRESHOLD = 10_000
"""Characters that are encoded in plain Python before the compiled kernel is loaded.

Loading it takes as long as encoding tens of thousands of characters without it, and compiling it
for the first time far longer. A process that needs less never loads it.
"""

NO_ID = -1
"""The unknown token's id where no character needs one."""

# For a short text, giving back the memory that its ids did not need takes longer than it is worth.
_BYTES_NOT_TRIMMED = 1024

_NO_SPANS = np.empty((0, 3), dtype=np.int32)
_NO_OFFSETS = np.empty((0, 2), dtype=np.int32)


# Every byte that UTF-8 text has. A vocabulary with tokens for all of them needs no unknown token.
_BYTES_OF_UTF8 = (*range(0xC0), *range(0xC2, 0xF5))

_CLEANING_TAGS = ("<URL>", "<EMAIL>", "<TEL>", "<DATE>", "<PRICE>", "<BLOCK>")


class VocabularyEncoder:
    """Encodes with one vocabulary, and knows of no added tokens. Threads may share it.

    Its methods are those of `Codec`, which see.

    Args:
        vocabulary: Surface forms and emoji.
        legacy: See `Codec`.
        clean: See `Codec`.
        unknown_id: Stands for characters whose byte tokens the vocabulary lacks; `NO_ID` if none.
        jit_threshold: See `Codec`.

    Attributes:
        unknown_id: As above.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        legacy: bool,
        clean: bool,
        unknown_id: int,
        jit_threshold: int,
    ) -> None:
        _check(vocabulary, clean=clean)
        self.vocabulary = vocabulary
        self.legacy = legacy
        self.clean = clean
        self.unknown_id = unknown_id
        self._jit_threshold = jit_threshold
        self._characters_before_jit = jit_threshold

    def encode(
        self,
        text: str,
        *,
        allow_tags: bool = False,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> NDArray[np.int32]:
        """The ids of a text, int32 [tokens].

        Args:
            text: Any string of Unicode scalar values.
            allow_tags: Whether tags that the text spells out become their ids.
            dropout: How likely a piece is dropped, 0 to 1; 0 for none.
            seed: Makes dropout repeatable; None draws anew.

        Raises:
            TokenizationError: The text holds a lone surrogate, or `dropout` is no probability.
        """
        dropout_threshold, rng_state = dropout_draws(dropout, seed) if dropout else (0, 1)
        if self._stays_in_python(len(text)):
            return self._encode_in_python(text, allow_tags, dropout_threshold, rng_state).ids
        data = to_utf8(text)
        if self.clean:
            spans = self._cleanable(data)
            return self._encode_with_spans(
                data, allow_tags, dropout_threshold, rng_state, spans, _NO_OFFSETS
            )
        ids = np.empty(len(data), dtype=np.int32)
        count = self._kernel.encode(
            data, self._tables, allow_tags, dropout_threshold, rng_state, ids
        )
        if len(data) <= _BYTES_NOT_TRIMMED:
            return ids[:count]
        ids.resize(count, refcheck=False)
        return ids

    def encode_with_offsets(self, text: str, *, allow_tags: bool = False) -> Encoding:
        """The ids of a text and, for each, the characters that it stands for.

        Args:
            text: Any string of Unicode scalar values.
            allow_tags: Whether tags that the text spells out become their ids.

        Returns:
            `ids`, int32 [tokens], and `offsets`, int32 [tokens, 2].

        Raises:
            TokenizationError: The text holds a lone surrogate.
        """
        if self._stays_in_python(len(text)):
            return self._encode_in_python(text, allow_tags)
        data = to_utf8(text)
        spans = self._cleanable(data) if self.clean else _NO_SPANS
        offsets = np.empty((len(data), 2), dtype=np.int32)
        ids = self._encode_with_spans(data, allow_tags, 0, 1, spans, offsets)
        offsets.resize((len(ids), 2), refcheck=False)
        return Encoding(ids, offsets)

    def encode_batch(
        self, texts: Sequence[str], *, allow_tags: bool = False, num_threads: int | None = None
    ) -> Ragged:
        """The ids of many texts at once.

        Args:
            texts: Strings of Unicode scalar values.
            allow_tags: Whether tags that the text spells out become their ids.
            num_threads: How many threads to use; one for each usable core if None.

        Returns:
            `ids`, int32 [tokens of all texts], and `bounds`, int64 [texts + 1].

        Raises:
            TokenizationError: A text holds a lone surrogate.
        """
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        if self.clean or self._stays_in_python(int(lengths.sum())):
            rows = [self.encode(text, allow_tags=allow_tags) for text in texts]
            return concatenate([Ragged(ids, np.array([0, len(ids)])) for ids in rows])

        def encode(task: slice) -> Ragged:
            data = to_utf8("".join(texts[task]))
            ids = np.empty(len(data), dtype=np.int32)
            bounds = np.zeros(task.stop - task.start + 1, dtype=np.int64)
            count = self._kernel.encode_many(
                data, lengths[task], self._tables, allow_tags, ids, bounds
            )
            ids.resize(count, refcheck=False)
            return Ragged(ids, bounds)

        return concatenate(map_in_threads(encode, cut_between_texts(lengths), num_threads))

    def encode_bytes(
        self,
        data: Buffer,
        *,
        allow_tags: bool = False,
        num_threads: int | None = None,
    ) -> NDArray[np.int32]:
        """The ids of a UTF-8 text; no string is made of it, unless it is to be cleaned.

        Args:
            data: UTF-8, without a byte order mark.
            allow_tags: Whether tags that the text spells out become their ids.
            num_threads: How many threads to use; one for each usable core if None.

        Returns:
            int32 [tokens].

        Raises:
            TokenizationError: The bytes are not UTF-8; the message names the first bad one.
        """
        array = np.frombuffer(data, dtype=np.uint8)
        array.flags.writeable = False  # what the kernel is compiled for
        if self.clean:
            return self.encode(from_utf8(array), allow_tags=allow_tags)

        def encode(task: slice) -> NDArray[np.int32]:
            part = array[task]
            ids = np.empty(len(part), dtype=np.int32)
            count = self._kernel.encode(part, self._tables, allow_tags, 0, 1, ids)
            if count < 0:
                _fail_at_byte(array, task.start - 1 - count)
            ids.resize(count, refcheck=False)
            return ids

        parts = map_in_threads(encode, cut_between_lines(array), num_threads)
        return np.concatenate([np.empty(0, dtype=np.int32), *parts])

    def __getstate__(self) -> dict[str, object]:
        """Everything but what is made again when it is needed."""
        made_again = ("_forms", "_in_python", "_tables", "_kernel")
        kept = {name: value for name, value in vars(self).items() if name not in made_again}
        return {**kept, "_characters_before_jit": self._jit_threshold}

    @cached_property
    def _forms(self) -> dict[str, int]:
        forms = dict(self.vocabulary.ids)
        if self.legacy:
            # transformers splits every line at its commas, the comma's own line too: there the
            # comma has no entry and is written as a byte.
            forms.pop(",", None)
        return forms

    @cached_property
    def _in_python(self) -> PythonEncoder:
        return PythonEncoder(
            self._forms,
            self.vocabulary.emoji,
            unknown_id=self.unknown_id,
            legacy=self.legacy,
            clean=self.clean,
        )

    @cached_property
    def _tables(self) -> NDArray[np.int32]:
        return build_tables(
            self._forms,
            self.vocabulary.emoji,
            unknown_id=self.unknown_id,
            joins=not self.legacy,
        )

    @cached_property
    def _kernel(self) -> ModuleType:
        from gpt_neox_japanese.tokenizer.kernels import encode

        return encode

    def _stays_in_python(self, characters: int) -> bool:
        """Whether so many more characters are encoded in plain Python, without the kernel."""
        if self._characters_before_jit > 0:
            self._characters_before_jit -= characters
        return self._characters_before_jit > 0

    def _encode_in_python(
        self, text: str, allow_tags: bool, dropout_threshold: int = 0, rng_state: int = 1
    ) -> Encoding:
        try:
            return self._in_python.encode(
                text,
                allow_tags=allow_tags,
                dropout_threshold=dropout_threshold,
                rng_state=rng_state,
            )
        except TokenizationError:
            to_utf8(text)  # so that the error names the place
            raise

    def _cleanable(self, data: NDArray[np.uint8]) -> NDArray[np.int32]:
        """What cleaning replaces, as `encode.encode_with_spans` takes it."""
        codes = np.empty(len(data), dtype="<i4")
        count = self._kernel.plain(data, self._tables, codes)
        found = find_cleanable(codes[:count].tobytes().decode("utf-32-le"), legacy=self.legacy)
        spans = [(start, end, self._forms[tag]) for start, end, tag in found]
        return np.array(spans, dtype=np.int32).reshape(-1, 3)

    def _encode_with_spans(
        self,
        data: NDArray[np.uint8],
        allow_tags: bool,
        dropout_threshold: int,
        rng_state: int,
        spans: NDArray[np.int32],
        offsets: NDArray[np.int32],
    ) -> NDArray[np.int32]:
        ids = np.empty(len(data), dtype=np.int32)
        count = self._kernel.encode_with_spans(
            data, self._tables, allow_tags, dropout_threshold, rng_state, spans, ids, offsets
        )
        ids.resize(count, refcheck=False)
        return ids


def find_unknown_id(
    unknown: str | int | None, vocabulary: Vocabulary, added: AddedTokens | None
) -> int:
    """The id that stands for characters whose byte tokens a vocabulary lacks.

    Args:
        unknown: Its name, or itself, or None where no byte token is missing.
        vocabulary: Surface forms and emoji.
        added: Tokens added to it.

    Returns:
        The id; -1 where none is needed.

    Raises:
        VocabularyError: There is no such token, or one is needed.
    """
    added_ids = added.ids if added else {}
    if unknown is not None and not isinstance(unknown, str):
        ids = (len(vocabulary) - 1, *(added.tokens if added else ()))
        unknown = check_integer("unknown", unknown, VocabularyError, minimum=0, maximum=max(ids))
        if unknown >= len(vocabulary) and unknown not in ids:
            raise VocabularyError(f"unknown is {unknown}, an id that has no token; name another")
        return unknown
    if unknown is not None:
        unknown_id = added_ids.get(unknown, vocabulary.ids.get(unknown))
        if unknown_id is None:
            raise VocabularyError(
                f"the vocabulary has no entry {unknown!r}, the token for unknown characters; if"
                " vocab.txt was cut short, copy it again, or else name an entry as unk_token"
            )
        return unknown_id
    for byte in _BYTES_OF_UTF8:
        if f"<|byte{byte}|>" not in vocabulary.ids:
            raise VocabularyError(
                f"the vocabulary has no entry '<|byte{byte}|>', which some characters need, and no"
                " unknown token stands for them; name one, or add a line for each byte"
            )
    return NO_ID


def _check(vocabulary: Vocabulary, *, clean: bool) -> None:
    for tag in _CLEANING_TAGS if clean else ():
        if tag not in vocabulary.ids:
            raise VocabularyError(f"cleaning needs an entry {tag!r}; add a line {tag!r}")
    for key, tag in vocabulary.emoji.items():
        if len(tag) < 2 or tag[0] != "<":
            raise VocabularyError(
                f"the emoji {key!r} has the class {tag!r}; write a tag such as '<|emoji1|>'"
            )


def check_dropout(dropout: float, seed: int | None) -> None:
    """Check the arguments of dropout.

    Args:
        dropout: A probability.
        seed: A whole number that is not negative, or None.

    Raises:
        TokenizationError: One of them is something else.
    """
    check_number("dropout", dropout, TokenizationError, lambda x: 0 <= x <= 1, "from 0 to 1")
    if seed is not None:
        check_integer("seed", seed, TokenizationError, minimum=0)


def dropout_draws(dropout: float, seed: int | None) -> tuple[int, int]:
    """What the encoders need for dropout.

    Args:
        dropout: A probability.
        seed: Any whole number that is not negative, or None for another one each time.

    Returns:
        The dropout threshold, which is the probability times 2**32, and the state of the random
        numbers, 1 to 2**32 - 1.

    Raises:
        TokenizationError: `dropout` is no probability, or `seed` no such number.
    """
    check_dropout(dropout, seed)
    rng_state = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return math.ceil(dropout * 2**32), rng_state or 1


def to_utf8(text: str, name: str = "the text") -> NDArray[np.uint8]:
    """The bytes of a text.

    Args:
        text: Any string.
        name: What an error calls it.

    Returns:
        uint8 [bytes].

    Raises:
        TokenizationError: It holds a lone surrogate; the message says where.
    """
    try:
        return np.frombuffer(text.encode(), dtype=np.uint8)
    except UnicodeEncodeError as error:
        raise TokenizationError(
            f"{name} holds a lone surrogate, U+{ord(text[error.start]):04X}, at character"
            f" {error.start}; decode its bytes with errors='replace' first"
        ) from error


def from_utf8(data: NDArray[np.uint8], part: slice = slice(None)) -> str:
    """The text that bytes, or some of them, are.

    Args:
        data: uint8 [bytes].
        part: Which of them.

    Returns:
        The text.

    Raises:
        TokenizationError: They are not UTF-8; the message names the first bad one.
    """
    try:
        return data[part].tobytes().decode()
    except UnicodeDecodeError as error:
        _fail_at_byte(data, (part.start or 0) + error.start)


def _fail_at_byte(data: NDArray[np.uint8], position: int) -> NoReturn:
    raise TokenizationError(
        f"byte {position}, {int(data[position]):#04x}, is not UTF-8; convert the text to UTF-8"
    )
