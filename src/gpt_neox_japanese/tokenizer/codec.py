"""`Codec`: text to ids and back, with no heavy library behind it."""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import TokenizationError, VocabularyError
from gpt_neox_japanese.tokenizer.batching import (
    concatenated,
    cut_between_lines,
    cut_between_texts,
    in_threads,
)
from gpt_neox_japanese.tokenizer.cleaning import find_cleanable
from gpt_neox_japanese.tokenizer.decoding import Decoder, StreamDecoder
from gpt_neox_japanese.tokenizer.encoding import Encoding, Ragged
from gpt_neox_japanese.tokenizer.reference import ReferenceEncoder
from gpt_neox_japanese.tokenizer.tables import build_tables
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

__all__ = ["Codec"]

CONFIG_FILE = "tokenizer_config.json"

# Loading the compiled kernel takes as long as encoding tens of thousands of characters without it,
# and compiling it for the first time far longer. A process that needs less never loads it.
_CHARACTERS_BEFORE_KERNEL = 10_000

# For a short text, giving back the memory that its ids did not need takes longer than it is worth.
_BYTES_NOT_TRIMMED = 1024

_CLEANING_TAGS = ("<URL>", "<EMAIL>", "<TEL>", "<DATE>", "<PRICE>", "<BLOCK>")

_NO_SPANS = np.empty((0, 3), dtype=np.int32)
_NO_OFFSETS = np.empty((0, 2), dtype=np.int32)


class Codec:
    """Encodes and decodes with one vocabulary. Threads may share it.

    Args:
        vocabulary: Surface forms and emoji.
        legacy: Give exactly the ids that transformers gives for the same files; the choice for
            published weights. Without it the comma has its own id, and an emoji with skin tone or
            joiners is one token; the choice for vocabularies built by `neox-ja vocab build`.
        clean: Replace URLs, addresses, telephone numbers, dates, prices and box drawing by tags.
        unknown: The entry for characters whose byte tokens the vocabulary lacks.

    Raises:
        VocabularyError: `unknown` or a tag that cleaning needs is not in the vocabulary.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        legacy: bool = True,
        clean: bool = False,
        unknown: str = "<|endoftext|>",
    ) -> None:
        _check(vocabulary, unknown, clean=clean)
        self.vocabulary = vocabulary
        self.legacy = legacy
        self.clean = clean
        self._unknown_id = vocabulary.ids[unknown]
        self._decoder = Decoder(vocabulary)
        self._characters_before_kernel = _CHARACTERS_BEFORE_KERNEL

    @classmethod
    def load(cls, directory: str | Path) -> Codec:
        """Read a vocabulary and its options from a directory.

        `vocab.txt` and `emoji.json` must be there. `tokenizer_config.json` may be: its `legacy`
        (default true) and `do_clean_text` (default false) are heeded.

        Raises:
            VocabularyError: A file is missing or broken.
        """
        vocabulary = Vocabulary.load(directory)
        config = _read_config(Path(directory) / CONFIG_FILE)
        return cls(
            vocabulary,
            legacy=config.get("legacy", True),
            clean=config.get("do_clean_text", False),
        )

    def save(self, directory: str | Path) -> None:
        """Write `vocab.txt`, `emoji.json` and `tokenizer_config.json` into `directory`."""
        self.vocabulary.save(directory)
        config = {
            "do_clean_text": self.clean,
            "legacy": self.legacy,
            "tokenizer_class": "GPTNeoXJapaneseTokenizer",
        }
        path = Path(directory) / CONFIG_FILE
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8", newline="\n")

    def encode(
        self,
        text: str,
        *,
        allow_tags: bool = False,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> NDArray[np.int32]:
        """The ids of a text, int32 of shape `(tokens,)`.

        Args:
            text: Any string of Unicode scalar values.
            allow_tags: Let tags spelled out in the text (`<|endoftext|>`, `<BR>`) become control
                ids, as transformers does. Leave it off for text from strangers.
            dropout: Subword regularisation: wherever there is more than one piece to choose from,
                leave the best one with this probability. For training only.
            seed: Makes `dropout` repeatable; every call draws anew if it is None.

        Raises:
            TokenizationError: The text holds a lone surrogate, or `dropout` is no probability.
        """
        leave, state = _start_of_draws(dropout, seed) if dropout else (0, 1)
        if self._is_little(len(text)):
            return self._reference.encode(text, allow_tags=allow_tags, leave=leave, state=state).ids
        data = _utf8(text)
        if self.clean:
            spans = self._cleanable(data)
            return self._encode_with_spans(data, allow_tags, leave, state, spans, _NO_OFFSETS)
        ids = np.empty(len(data), dtype=np.int32)
        count = self._kernel.encode(data, self._tables, allow_tags, leave, state, ids)
        if len(data) <= _BYTES_NOT_TRIMMED:
            return ids[:count]
        ids.resize(count, refcheck=False)
        return ids

    def encode_with_offsets(self, text: str, *, allow_tags: bool = False) -> Encoding:
        """The ids of a text and, for each, the characters that it stands for.

        Raises:
            TokenizationError: The text holds a lone surrogate.
        """
        if self._is_little(len(text)):
            return self._reference.encode(text, allow_tags=allow_tags)
        data = _utf8(text)
        spans = self._cleanable(data) if self.clean else _NO_SPANS
        offsets = np.empty((len(data), 2), dtype=np.int32)
        ids = self._encode_with_spans(data, allow_tags, 0, 1, spans, offsets)
        offsets.resize((len(ids), 2), refcheck=False)
        return Encoding(ids, offsets)

    def encode_batch(
        self, texts: Sequence[str], *, allow_tags: bool = False, threads: int | None = None
    ) -> Ragged:
        """The ids of many texts at once.

        Args:
            texts: Strings of Unicode scalar values.
            allow_tags: See `encode`.
            threads: As many as there are cores if None.

        Raises:
            TokenizationError: A text holds a lone surrogate.
        """
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        if self.clean or self._is_little(int(lengths.sum())):
            rows = [self.encode(text, allow_tags=allow_tags) for text in texts]
            return concatenated([Ragged(ids, np.array([0, len(ids)])) for ids in rows])

        def encode(task: slice) -> Ragged:
            data = _utf8("".join(texts[task]))
            ids = np.empty(len(data), dtype=np.int32)
            bounds = np.zeros(task.stop - task.start + 1, dtype=np.int64)
            count = self._kernel.encode_many(
                data, lengths[task], self._tables, allow_tags, ids, bounds
            )
            ids.resize(count, refcheck=False)
            return Ragged(ids, bounds)

        return concatenated(in_threads(encode, cut_between_texts(lengths), threads))

    def encode_bytes(
        self,
        data: bytes | bytearray | memoryview | mmap.mmap | NDArray[np.uint8],
        *,
        allow_tags: bool = False,
        threads: int | None = None,
    ) -> NDArray[np.int32]:
        """The ids of a UTF-8 text that lies in memory or in a mapped file; no string is made of it.

        Args:
            data: UTF-8, without a byte order mark.
            allow_tags: See `encode`.
            threads: As many as there are cores if None.

        Raises:
            TokenizationError: The bytes are not UTF-8; the message names the first bad one.
        """
        array = np.frombuffer(data, dtype=np.uint8)
        array.flags.writeable = False  # what the kernel is compiled for
        if self.clean:
            return self.encode(_text_of(array), allow_tags=allow_tags)

        def encode(task: slice) -> NDArray[np.int32]:
            part = array[task]
            ids = np.empty(len(part), dtype=np.int32)
            count = self._kernel.encode(part, self._tables, allow_tags, 0, 1, ids)
            if count < 0:
                _fail_at_byte(array, task.start - 1 - count)
            ids.resize(count, refcheck=False)
            return ids

        parts = in_threads(encode, cut_between_lines(array), threads)
        return np.concatenate([np.empty(0, dtype=np.int32), *parts])

    def decode(self, ids: Iterable[int] | NDArray[np.integer]) -> str:
        """The text of a sequence of ids.

        Raises:
            TokenizationError: An id is outside the vocabulary.
        """
        return self._decoder.decode(ids)

    def decode_batch(self, sequences: Iterable[Iterable[int] | NDArray[np.integer]]) -> list[str]:
        """The texts of several sequences of ids, such as a `Ragged`."""
        return [self.decode(ids) for ids in sequences]

    def stream_decoder(self, *, errors: Literal["replace", "ignore"] = "replace") -> StreamDecoder:
        """A decoder that is fed one id at a time and gives text as soon as it is complete.

        Args:
            errors: Whether bytes that form no character become U+FFFD or nothing.
        """
        return self._decoder.stream(errors=errors)

    def __getstate__(self) -> dict[str, object]:
        """Everything but what is made again when it is needed."""
        made_again = ("_forms", "_reference", "_tables", "_kernel")
        return {name: value for name, value in vars(self).items() if name not in made_again}

    @cached_property
    def _forms(self) -> dict[str, int]:
        forms = dict(self.vocabulary.ids)
        if self.legacy:
            # transformers splits every line at its commas, the comma's own line too: there the
            # comma has no entry and is written as a byte.
            forms.pop(",", None)
        return forms

    @cached_property
    def _reference(self) -> ReferenceEncoder:
        return ReferenceEncoder(
            self._forms,
            self.vocabulary.emoji,
            unknown_id=self._unknown_id,
            legacy=self.legacy,
            clean=self.clean,
        )

    @cached_property
    def _tables(self) -> NDArray[np.int32]:
        return build_tables(
            self._forms,
            self.vocabulary.emoji,
            unknown_id=self._unknown_id,
            joins=not self.legacy,
        )

    @cached_property
    def _kernel(self) -> ModuleType:
        from gpt_neox_japanese.tokenizer import kernel

        return kernel

    def _is_little(self, characters: int) -> bool:
        """Whether the kernel need not be loaded for a text of so many characters, yet."""
        if self._characters_before_kernel > 0:
            self._characters_before_kernel -= characters
        return self._characters_before_kernel > 0

    def _cleanable(self, data: NDArray[np.uint8]) -> NDArray[np.int32]:
        """What cleaning replaces, as `kernel.encode_with_spans` takes it."""
        codes = np.empty(len(data), dtype="<i4")
        count = self._kernel.plain(data, self._tables, codes)
        found = find_cleanable(codes[:count].tobytes().decode("utf-32-le"), legacy=self.legacy)
        spans = [(start, end, self._forms[tag]) for start, end, tag in found]
        return np.array(spans, dtype=np.int32).reshape(-1, 3)

    def _encode_with_spans(
        self,
        data: NDArray[np.uint8],
        allow_tags: bool,
        leave: int,
        state: int,
        spans: NDArray[np.int32],
        offsets: NDArray[np.int32],
    ) -> NDArray[np.int32]:
        ids = np.empty(len(data), dtype=np.int32)
        count = self._kernel.encode_with_spans(
            data, self._tables, allow_tags, leave, state, spans, ids, offsets
        )
        ids.resize(count, refcheck=False)
        return ids


def _check(vocabulary: Vocabulary, unknown: str, *, clean: bool) -> None:
    if unknown not in vocabulary.ids:
        raise VocabularyError(
            f"the unknown token {unknown!r} is not in the vocabulary; name one of its entries"
        )
    for tag in _CLEANING_TAGS if clean else ():
        if tag not in vocabulary.ids:
            raise VocabularyError(f"cleaning needs an entry {tag!r}; add a line {tag!r}")
    for key, tag in vocabulary.emoji.items():
        if len(tag) < 2 or tag[0] != "<":
            raise VocabularyError(
                f"the emoji {key!r} has the class {tag!r}; write a tag such as '<|emoji1|>'"
            )


def _start_of_draws(dropout: float, seed: int | None) -> tuple[int, int]:
    """`leave` and `state` for the encoders: the probability times 2**32, and a number not 0."""
    if not 0 <= dropout <= 1:
        raise TokenizationError(f"dropout is a probability, 0 to 1, not {dropout!r}")
    state = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return math.ceil(dropout * 2**32), state or 1


def _utf8(text: str) -> NDArray[np.uint8]:
    try:
        return np.frombuffer(text.encode(), dtype=np.uint8)
    except UnicodeEncodeError as error:
        raise TokenizationError(
            f"the text holds a lone surrogate, U+{ord(text[error.start]):04X}, at character"
            f" {error.start}; decode its bytes with errors='replace' first"
        ) from error


def _text_of(data: NDArray[np.uint8]) -> str:
    try:
        return data.tobytes().decode()
    except UnicodeDecodeError as error:
        _fail_at_byte(data, error.start)


def _fail_at_byte(data: NDArray[np.uint8], position: int) -> NoReturn:
    raise TokenizationError(
        f"byte {position}, {int(data[position]):#04x}, is not UTF-8; convert the text to UTF-8"
    )


def _read_config(path: Path) -> dict[str, bool]:
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise VocabularyError(f"cannot read {str(path)!r}: {error}; it must be JSON") from error
    if not isinstance(config, dict):
        raise VocabularyError(f"{str(path)!r} must hold a JSON object, not {config!r:.40}")
    flags = {name: config[name] for name in ("legacy", "do_clean_text") if name in config}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise VocabularyError(f"{str(path)!r}: {name!r} must be true or false, not {value!r}")
    return flags
