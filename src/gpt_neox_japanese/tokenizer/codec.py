"""`Codec`: text to ids and back, with no heavy library behind it."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import CheckpointError, VocabularyError
from gpt_neox_japanese.tokenizer.added_tokens import AddedTokens, Segment, TokenFlags
from gpt_neox_japanese.tokenizer.added_tokens_files import (
    CONFIG_FILE,
    DEFAULT_UNKNOWN,
    read_added_tokens,
    read_json,
    token_content,
)
from gpt_neox_japanese.tokenizer.batching import cut_between_lines, in_threads
from gpt_neox_japanese.tokenizer.decoding import Decoder, StreamDecoder
from gpt_neox_japanese.tokenizer.plain_encoder import Buffer, PlainEncoder, text_of, utf8
from gpt_neox_japanese.tokenizer.results import Encoding, Ragged
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

__all__ = ["END_OF_TEXT", "Codec"]

END_OF_TEXT = "<|endoftext|>"

# Every byte that UTF-8 text has. A vocabulary with tokens for all of them needs no unknown token.
_BYTES_OF_UTF8 = (*range(0xC0), *range(0xC2, 0xF5))
_NO_ID = -1

_CLEANING_TAGS = ("<URL>", "<EMAIL>", "<TEL>", "<DATE>", "<PRICE>", "<BLOCK>")


class Codec:
    """Encodes and decodes with one vocabulary. Threads may share it.

    `len(codec)` is the number of ids, those of added tokens included.

    Args:
        vocabulary: Surface forms and emoji.
        legacy: Give exactly the ids that transformers gives for the same files; the choice for
            published weights. Without it the comma has its own id, and an emoji with skin tone or
            joiners is one token; the choice for vocabularies built by `neox-ja vocab build`.
        clean: Replace URLs, addresses, telephone numbers, dates, prices and box drawing by tags.
        unknown: The entry, or the added token, or its id, for characters whose byte tokens the
            vocabulary lacks. None if it lacks none.
        added: Tokens beyond the vocabulary, and special tokens of the vocabulary. An ordinary added
            token becomes its id wherever it is written; a special one, like every tag, only with
            `allow_tags`.

    Raises:
        VocabularyError: `unknown` or a tag that cleaning needs is not in the vocabulary.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        legacy: bool = True,
        clean: bool = False,
        unknown: str | int | None = DEFAULT_UNKNOWN,
        added: AddedTokens | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self.legacy = legacy
        self.clean = clean
        _check(vocabulary, clean=clean)
        unknown_id = _unknown_id(unknown, vocabulary, added)
        self._encoder = PlainEncoder(vocabulary, legacy=legacy, clean=clean, unknown_id=unknown_id)
        self._set_added(added)

    @classmethod
    def load(cls, directory: str | Path) -> Codec:
        """Read a vocabulary, its options and its added tokens from a directory.

        `vocab.txt` and `emoji.json` must be there. `tokenizer_config.json` may be: its `legacy`
        (default true), `do_clean_text` (default false), special and added tokens are heeded, and
        so are the `added_tokens.json` and `special_tokens_map.json` of earlier versions.

        Raises:
            VocabularyError: A file is missing or broken.
        """
        directory = Path(directory)
        vocabulary = Vocabulary.load(directory)
        path = directory / CONFIG_FILE
        config = read_json(path)
        unknown = config.get("unk_token", DEFAULT_UNKNOWN)
        return cls(
            vocabulary,
            legacy=_flag(config, "legacy", True, path),
            clean=_flag(config, "do_clean_text", False, path),
            unknown=None if unknown is None else token_content(unknown, path, "unk_token"),
            added=read_added_tokens(directory, config, vocabulary),
        )

    def save(self, directory: str | Path) -> None:
        """Write `vocab.txt`, `emoji.json` and `tokenizer_config.json` into `directory`."""
        self.vocabulary.save(directory)
        config: dict[str, Any] = {
            "do_clean_text": self.clean,
            "legacy": self.legacy,
            "tokenizer_class": "GPTNeoXJapaneseTokenizer",
        }
        if self._beyond_vocabulary:
            config["added_tokens_decoder"] = {
                str(i): {
                    "content": token.content,
                    "lstrip": token.lstrip,
                    "normalized": not token.special,
                    "rstrip": token.rstrip,
                    "single_word": token.single_word,
                    "special": token.special,
                }
                for i, token in self._added.tokens.items()
            }
        path = Path(directory) / CONFIG_FILE
        text = json.dumps(config, indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8", newline="\n")

    def with_added(self, added: AddedTokens) -> Codec:
        """The same vocabulary with other added tokens; what is large is shared."""
        other = copy.copy(self)
        other._set_added(added)
        return other

    # ---- Ids -------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return max(len(self.vocabulary), 1 + max(self._added.tokens, default=-1))

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of special tokens that were added or named; marks, which are no text."""
        return self._added.special_ids

    @property
    def end_of_text_id(self) -> int:
        """The id that ends a document.

        Raises:
            VocabularyError: There is none.
        """
        token_id = self.id_of(END_OF_TEXT)
        if token_id is None:
            raise VocabularyError(f"the vocabulary has no {END_OF_TEXT} to end documents with")
        return token_id

    @property
    def fingerprint(self) -> str:
        """Tells what the ids mean: that of the vocabulary, or another where tokens were added."""
        if not self._beyond_vocabulary:
            return self.vocabulary.fingerprint
        tokens = [
            [i, t.content, t.special, t.lstrip, t.rstrip, t.single_word]
            for i, t in self._beyond_vocabulary.items()
        ]
        text = json.dumps([self.vocabulary.fingerprint, tokens])
        return hashlib.sha256(text.encode()).hexdigest()

    def token(self, token_id: int) -> str:
        """The name of an id: its canonical form, or how the added token is written.

        Raises:
            TokenizationError: No such id.
        """
        self._decoder.piece(token_id)
        added = self._added.tokens.get(token_id)
        return self.vocabulary.name(token_id) if added is None else added.content

    def id_of(self, token: str) -> int | None:
        """The id of a tag, a form, or an added token; None if there is none.

        An added token that took the id of a form has also taken it from that form.
        """
        token_id = self._added.ids.get(token, self.vocabulary.ids.get(token))
        if token_id in self._foreign and self._foreign[token_id] != token:
            return None
        return token_id

    def check_model(self, config: Mapping[str, Any], directory: str | Path) -> int:
        """Hold a model's configuration to this tokenizer.

        A model may have more rows than there are ids: rows that pad it to a round number mean
        nothing. It may have fewer only where no text can become an id that it lacks.

        Args:
            config: `config.json` of the model.
            directory: Where it lies, for the message.

        Returns:
            How many ids the model can read and write: they are below this number.

        Raises:
            CheckpointError: The model was made with another vocabulary.
        """
        rows, size = config.get("vocab_size"), len(self.vocabulary)
        where = repr(str(directory))
        if not isinstance(rows, int) or rows < size:
            raise CheckpointError(
                f"{where}: the model has {rows} ids, its vocabulary {size}; put the vocab.txt that"
                " it was trained with beside it"
            )
        for token_id, token in self._added.tokens.items():
            if token_id >= rows and not token.special:
                raise CheckpointError(
                    f"{where}: the model has {rows} ids, and the added token {token.content!r} has"
                    f" id {token_id}; call resize_token_embeddings({len(self)}) and save it again"
                )
        count = min(rows, len(self))
        for token_id in range(size, count):
            if token_id not in self._added.tokens:
                raise CheckpointError(
                    f"{where}: id {token_id} has no token, though there are added tokens after it;"
                    " name it in added_tokens_decoder of tokenizer_config.json"
                )
        ends = config.get("eos_token_id")
        for end in ends if isinstance(ends, list) else [ends]:
            if rows > count and isinstance(end, int) and end >= count:
                raise CheckpointError(
                    f"{where}: the model has {rows} ids, its vocabulary {size}, and its texts end"
                    f" with id {end}; put the vocab.txt that it was trained with beside it"
                )
        return count

    # ---- Text to ids -----------------------------------------------------------------------------

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
            allow_tags: Let tags and special tokens spelled out in the text (`<|endoftext|>`,
                `<BR>`) become control ids, as transformers does. Leave it off for text from
                strangers.
            dropout: Subword regularisation: wherever there is more than one piece to choose from,
                leave the best one with this probability. For training only.
            seed: Makes `dropout` repeatable; every call draws anew if it is None.

        Raises:
            TokenizationError: The text holds a lone surrogate, or `dropout` is no probability.
        """
        segments = self._segments(text, allow_tags)
        if not segments:
            return self._encoder.encode(text, allow_tags=allow_tags, dropout=dropout, seed=seed)
        rows = (
            self._encoder.encode(
                text[start:end],
                allow_tags=allow_tags,
                dropout=dropout,
                seed=_seed_of_part(seed, number) if dropout else None,
            )
            if token_id is None
            else [token_id]
            for number, (start, end, token_id) in enumerate(segments)
        )
        return np.fromiter(chain.from_iterable(rows), dtype=np.int32)

    def encode_with_offsets(self, text: str, *, allow_tags: bool = False) -> Encoding:
        """The ids of a text and, for each, the characters that it stands for.

        Whitespace that an added token strips belongs to that token.

        Raises:
            TokenizationError: The text holds a lone surrogate.
        """
        segments = self._segments(text, allow_tags)
        if not segments:
            return self._encoder.encode_with_offsets(text, allow_tags=allow_tags)
        ids, offsets = [], []
        for start, end, token_id in segments:
            if token_id is None:
                part = self._encoder.encode_with_offsets(text[start:end], allow_tags=allow_tags)
                ids.append(part.ids)
                offsets.append(part.offsets + np.int32(start))
            else:
                ids.append(np.array([token_id], dtype=np.int32))
                offsets.append(np.array([(start, end)], dtype=np.int32))
        return Encoding(np.concatenate(ids), np.concatenate(offsets))

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
        looks = self._looks_for_marks if allow_tags else self._looks_for_words
        segments: list[list[Segment]] = []
        if looks and self._added.may_occur(texts, marks=allow_tags):
            segments = [self._segments(text, allow_tags) for text in texts]
        if not any(segments):
            return self._encoder.encode_batch(texts, allow_tags=allow_tags, threads=threads)
        whole = [
            parts or [Segment(0, len(t), None)] for t, parts in zip(texts, segments, strict=True)
        ]
        between = [
            text[start:end]
            for text, parts in zip(texts, whole, strict=True)
            for start, end, token_id in parts
            if token_id is None
        ]
        encoded = iter(self._encoder.encode_batch(between, allow_tags=allow_tags, threads=threads))
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
        self, data: Buffer, *, allow_tags: bool = False, threads: int | None = None
    ) -> NDArray[np.int32]:
        """The ids of a UTF-8 text that lies in memory or in a mapped file.

        No string is made of it, unless it is to be cleaned or there are added tokens to look for.

        Args:
            data: UTF-8, without a byte order mark.
            allow_tags: See `encode`.
            threads: As many as there are cores if None.

        Raises:
            TokenizationError: The bytes are not UTF-8; the message names the first bad one.
        """
        if not (self._looks_for_marks if allow_tags else self._looks_for_words):
            return self._encoder.encode_bytes(data, allow_tags=allow_tags, threads=threads)
        array = np.frombuffer(data, dtype=np.uint8)
        if self.clean or self._added.may_cross_lines:
            return self.encode(text_of(array), allow_tags=allow_tags)

        def encode(task: slice) -> NDArray[np.int32]:
            return self.encode(text_of(array, task), allow_tags=allow_tags)

        parts = in_threads(encode, cut_between_lines(array), threads)
        return np.concatenate([np.empty(0, dtype=np.int32), *parts])

    # ---- Ids to text -----------------------------------------------------------------------------

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

    # ---- Inside ----------------------------------------------------------------------------------

    def _set_added(self, added: AddedTokens | None) -> None:
        self._added = added or AddedTokens({})
        size = len(self.vocabulary)
        foreign = {
            i: token.content
            for i, token in self._added.tokens.items()
            if i >= size or self.vocabulary.name(i) != token.content
        }
        if foreign != getattr(self, "_foreign", None):
            self._decoder = Decoder(self.vocabulary, foreign)
        self._foreign = foreign
        self._looks_for_words = self._added.any(marks=False)
        self._looks_for_marks = self._added.any(marks=True)

    @property
    def _beyond_vocabulary(self) -> dict[int, TokenFlags]:
        """Added tokens without special tokens of the vocabulary, whose ids and text are its own."""
        return {
            i: token
            for i, token in self._added.tokens.items()
            if i in self._foreign or not token.special
        }

    def _segments(self, text: str, allow_tags: bool) -> list[Segment]:
        """The text cut at added tokens; empty if it spells none."""
        if not (self._looks_for_marks if allow_tags else self._looks_for_words):
            return []
        segments = self._added.split(text, marks=allow_tags)
        if segments:
            utf8(text)  # so that an error names the place in the whole text
        return segments


def _unknown_id(
    unknown: str | int | None, vocabulary: Vocabulary, added: AddedTokens | None
) -> int:
    if isinstance(unknown, int):
        return unknown
    if unknown is not None:
        unknown_id = vocabulary.ids.get(unknown, added.ids.get(unknown) if added else None)
        if unknown_id is None:
            raise VocabularyError(
                f"the unknown token {unknown!r} is not in the vocabulary; name one of its entries"
            )
        return unknown_id
    for byte in _BYTES_OF_UTF8:
        if f"<|byte{byte}|>" not in vocabulary.ids:
            raise VocabularyError(
                f"the vocabulary has no entry '<|byte{byte}|>', which some characters need, and no"
                " unknown token stands for them; name one, or add a line for each byte"
            )
    return _NO_ID


def _check(vocabulary: Vocabulary, *, clean: bool) -> None:
    for tag in _CLEANING_TAGS if clean else ():
        if tag not in vocabulary.ids:
            raise VocabularyError(f"cleaning needs an entry {tag!r}; add a line {tag!r}")
    for key, tag in vocabulary.emoji.items():
        if len(tag) < 2 or tag[0] != "<":
            raise VocabularyError(
                f"the emoji {key!r} has the class {tag!r}; write a tag such as '<|emoji1|>'"
            )


def _flag(config: Mapping[str, Any], name: str, default: bool, path: Path) -> bool:
    value = config.get(name, default)
    if not isinstance(value, bool):
        raise VocabularyError(f"{str(path)!r}: {name!r} must be true or false, not {value!r}")
    return value


def _seed_of_part(seed: int | None, number: int) -> int | None:
    if seed is None:
        return None
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
