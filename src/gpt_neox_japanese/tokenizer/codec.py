"""`Codec`: text to ids and back, with no heavy library behind it."""

from __future__ import annotations

import copy
import mmap
import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.checks import check_integer, check_text, short_repr
from gpt_neox_japanese.errors import TokenizationError, VocabularyError
from gpt_neox_japanese.files.model_directory import HubKwargs, find_tokenizer
from gpt_neox_japanese.tokenizer.added_tokens import AddedTokens
from gpt_neox_japanese.tokenizer.encoding.text_encoder import TextEncoder
from gpt_neox_japanese.tokenizer.encoding.vocabulary_encoder import (
    JIT_THRESHOLD,
    NO_ID,
    Buffer,
    VocabularyEncoder,
    find_unknown_id,
)
from gpt_neox_japanese.tokenizer.results import Encoding, Ragged
from gpt_neox_japanese.tokenizer.special_tokens import (
    NO_TOKENS,
    AllowedSpecial,
    DisallowedSpecial,
    SpecialTokens,
)
from gpt_neox_japanese.tokenizer.token_ids import END_OF_TEXT, TokenIds
from gpt_neox_japanese.tokenizer.tokenizer_config import (
    DEFAULT_NAMES,
    DEFAULT_UNKNOWN,
    TokenizerConfig,
    read_tokenizer_config,
)
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

__all__ = ["END_OF_TEXT", "Codec"]


class Codec(TokenIds):
    """Encodes and decodes with one vocabulary. Threads may share it.

    What ids mean, their names and their text, is in `TokenIds`, the class below this one.

    Methods are named as in tiktoken. Other than there, a special token that a text spells out
    (`<|endoftext|>`) is neither an id nor an error by default: it is text like any other, so that
    text from strangers can be encoded as it is. `allowed_special` lets it become its id, and
    `disallowed_special="all"` gives tiktoken's default.

    >>> from gpt_neox_japanese import Codec, default_model_directory
    >>> codec = Codec.from_pretrained(default_model_directory())  # or a Hub id
    >>> codec
    Codec(n_vocab=8000, legacy=False, clean=False)
    >>> codec.encode("吾輩は猫である。")
    [5955, 5887, 4854, 5963, 126, 7582]
    >>> codec.decode(codec.encode("吾輩は猫である。"))
    '吾輩は猫である。'

    Args:
        vocabulary: Surface forms and emoji.
        legacy: Give exactly the ids that transformers gives for the same files; the choice for
            published weights. Without it the comma has its own id, and an emoji with skin tone or
            joiners is one token; the choice for vocabularies built by `neox-ja vocab build`.
        clean: Replace URLs, addresses, telephone numbers, dates, prices and box drawing by tags.
        unknown: The entry, or the added token, or its id, for characters whose byte tokens the
            vocabulary lacks. None if it lacks none.
        added: Tokens beyond the vocabulary, and special tokens of the vocabulary. An ordinary added
            token becomes its id wherever it is written; a special one only where it is allowed.
        jit_threshold: Characters that are encoded in plain Python before the compiled encoder is
            loaded, which takes a moment, and seconds at its very first use; 0 loads it at once.

    Attributes:
        vocabulary: As above.
        legacy: As above.
        clean: As above.

    Raises:
        VocabularyError: `unknown` or a tag that cleaning needs is not in the vocabulary.
        TokenizationError: `jit_threshold` is no whole number, or negative.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        legacy: bool = True,
        clean: bool = False,
        unknown: str | int | None = DEFAULT_UNKNOWN,
        added: AddedTokens | None = None,
        jit_threshold: int = JIT_THRESHOLD,
    ) -> None:
        self.legacy = legacy
        self.clean = clean
        self._vocabulary_encoder = VocabularyEncoder(
            vocabulary,
            legacy=legacy,
            clean=clean,
            unknown_id=find_unknown_id(unknown, vocabulary, added),
            jit_threshold=check_integer(
                "jit_threshold", jit_threshold, TokenizationError, minimum=0
            ),
        )
        super().__init__(vocabulary, added)

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike[str],
        *,
        jit_threshold: int = JIT_THRESHOLD,
        **hub: Unpack[HubKwargs],
    ) -> Codec:
        """Read a vocabulary, its options and its added tokens.

        `vocab.txt` and `emoji.json` must be there. `tokenizer_config.json` may be: its `legacy`
        (default true), `do_clean_text` (default false), special and added tokens are heeded, and
        so are the `added_tokens.json` and `special_tokens_map.json` of earlier versions. Of a
        repository on the Hub no other files are fetched.

        Args:
            path_or_hub_id: A directory, or a Hub id such as "abeja/gpt-neox-japanese-2.7b", or
                "default" for the vocabulary that comes with the package.
            jit_threshold: See `Codec`.
            **hub: Of a repository: `revision`, `cache_dir`, `token` and `local_files_only`; see
                `HubKwargs`.

        Returns:
            The codec.

        Raises:
            CheckpointError: There is no such directory or repository, or it cannot be reached.
            VocabularyError: A file is missing or broken.
        """
        directory = find_tokenizer(path_or_hub_id, **hub)
        vocabulary = Vocabulary.load(directory)
        config = read_tokenizer_config(directory, vocabulary)
        return cls(vocabulary, **config._asdict(), jit_threshold=jit_threshold)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Codec:
        """`from_pretrained` of a directory; nothing is ever fetched.

        Args:
            directory: Where the files are.

        Returns:
            The codec.

        Raises:
            CheckpointError: There is no such directory.
            VocabularyError: A file is missing or broken.
        """
        return cls.from_pretrained(Path(directory))

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write `vocab.txt`, `emoji.json` and `tokenizer_config.json`.

        A codec that is read from there gives the same ids, and so does the class of transformers.
        Only a token for unknown characters that was ordinary text is special there, if some
        characters have no others.

        Args:
            directory: Made if need be; files of these names are replaced.

        Raises:
            TokenizationError: The unknown token is none of the added ones any more.
        """
        unknown = None if self.unknown_id is None else self.id_to_token(self.unknown_id)
        if unknown is not None and unknown not in self.special_tokens_set:
            with suppress(VocabularyError):  # where a byte has no entry, it is needed
                find_unknown_id(None, self.vocabulary, None)
                unknown = None
        # A default whose id an added token took is none any more; unsaid, it would be asked for.
        taken = {
            name: None
            for name, token in DEFAULT_NAMES.items()
            if token in self.vocabulary.ids and self.token_to_id(token) is None
        }
        tokens, special_ids, names = self._added.tokens, self._added.special_ids, self._added.names
        added = AddedTokens(tokens, special_ids, {**taken, **names})
        config = TokenizerConfig(self.legacy, self.clean, unknown, added)
        self.vocabulary.save(directory)
        config.save(Path(directory))

    def with_added(self, added: AddedTokens) -> Codec:
        """The same vocabulary with other added tokens; what is large is shared.

        Args:
            added: As in the constructor; they take the place of those there are.

        Returns:
            Another codec.
        """
        other = copy.copy(self)
        other._set_added(added)
        return other

    def __repr__(self) -> str:
        added = f", added_tokens={len(self._beyond_vocabulary)}" if self._beyond_vocabulary else ""
        return f"Codec(n_vocab={self.n_vocab}, legacy={self.legacy}, clean={self.clean}{added})"

    @property
    def unknown_id(self) -> int | None:
        """The id of characters whose byte tokens the vocabulary lacks; None if none was named."""
        unknown_id = self._vocabulary_encoder.unknown_id
        return None if unknown_id == NO_ID else unknown_id

    @property
    def special_tokens_set(self) -> frozenset[str]:
        """What `allowed_special="all"` allows: tags of the vocabulary and special added tokens.

        >>> "<|endoftext|>" in codec.special_tokens_set
        True
        """
        return self._special.names

    def encode(
        self,
        text: str,
        *,
        allowed_special: AllowedSpecial = NO_TOKENS,
        disallowed_special: DisallowedSpecial = (),
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> list[int]:
        """The ids of a text.

        >>> codec.encode("猫<|endoftext|>", allowed_special={"<|endoftext|>"})
        [5963, 7999]
        >>> codec.decode(codec.encode("猫<|endoftext|>"))
        '猫<|endoftext|>'
        >>> codec.encode("猫<|endoftext|>", disallowed_special="all")
        Traceback (most recent call last):
        ...
        gpt_neox_japanese.errors.TokenizationError: the text spells the special token ...

        Args:
            text: Any string of Unicode scalar values.
            allowed_special: Special tokens (`<|endoftext|>`, `<BR>`) that become their ids where
                the text spells them out: a set of them, or "all", as in transformers. Leave it
                empty for text from strangers; then they are text like any other.
            disallowed_special: Special tokens that are an error where the text spells them out.
                "all" stands for those that are not allowed; in tiktoken that is the default.
            dropout: Subword regularisation as in BPE-dropout: wherever there is more than one piece
                to choose from, drop the best one with this probability. For training only.
            seed: Makes `dropout` repeatable; every call draws anew if it is None.

        Returns:
            The ids.

        Raises:
            TokenizationError: The text holds a lone surrogate or a disallowed token, or an option
                makes no sense.
        """
        check_text("the text", text, TokenizationError)
        ids: list[int] = self._text_encoder.encode(
            text, allowed_special, disallowed_special, dropout, seed
        ).tolist()
        return ids

    def encode_to_numpy(
        self,
        text: str,
        *,
        allowed_special: AllowedSpecial = NO_TOKENS,
        disallowed_special: DisallowedSpecial = (),
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> NDArray[np.int32]:
        """The ids of a text as an array, which for long texts is faster than a list.

        >>> codec.encode_to_numpy("猫である").dtype
        dtype('int32')

        Args:
            text: See `encode`.
            allowed_special: See `encode`.
            disallowed_special: See `encode`.
            dropout: See `encode`.
            seed: See `encode`.

        Returns:
            int32 [tokens].

        Raises:
            TokenizationError: See `encode`.
        """
        check_text("the text", text, TokenizationError)
        return self._text_encoder.encode(text, allowed_special, disallowed_special, dropout, seed)

    def encode_with_offsets(
        self,
        text: str,
        *,
        allowed_special: AllowedSpecial = NO_TOKENS,
        disallowed_special: DisallowedSpecial = (),
    ) -> Encoding:
        """The ids of a text and, for each, the characters that it stands for.

        Whitespace that an added token strips belongs to that token.

        >>> codec.encode_with_offsets("猫である").offsets.tolist()
        [[0, 1], [1, 4]]

        Args:
            text: See `encode`.
            allowed_special: See `encode`.
            disallowed_special: See `encode`.

        Returns:
            `ids`, int32 [tokens], and `offsets`, int32 [tokens, 2].

        Raises:
            TokenizationError: See `encode`.
        """
        check_text("the text", text, TokenizationError)
        return self._text_encoder.encode_with_offsets(text, allowed_special, disallowed_special)

    def encode_batch(
        self,
        texts: Sequence[str],
        *,
        allowed_special: AllowedSpecial = NO_TOKENS,
        disallowed_special: DisallowedSpecial = (),
        num_threads: int | None = None,
    ) -> list[list[int]]:
        """The ids of many texts at once, on several threads where that helps.

        >>> codec.encode_batch(["猫", "猫である"])
        [[5963], [5963, 126]]

        Args:
            texts: See `encode`.
            allowed_special: See `encode`.
            disallowed_special: See `encode`.
            num_threads: One for each usable core if None.

        Returns:
            A list of ids for each text, in order.

        Raises:
            TokenizationError: See `encode`.
        """
        _check_texts(texts)
        _check_threads(num_threads)
        if len(texts) == 1:
            return [
                self.encode(
                    texts[0],
                    allowed_special=allowed_special,
                    disallowed_special=disallowed_special,
                )
            ]
        ragged = self._text_encoder.encode_batch(
            texts, allowed_special, disallowed_special, num_threads
        )
        ids, bounds = ragged.ids.tolist(), ragged.bounds.tolist()
        return [ids[start:end] for start, end in pairwise(bounds)]

    def encode_batch_to_numpy(
        self,
        texts: Sequence[str],
        *,
        allowed_special: AllowedSpecial = NO_TOKENS,
        disallowed_special: DisallowedSpecial = (),
        num_threads: int | None = None,
    ) -> Ragged:
        """The ids of many texts at once, all in one array.

        >>> rows = codec.encode_batch_to_numpy(["猫", "猫である"])
        >>> rows[1].tolist() == codec.encode("猫である")
        True

        Args:
            texts: See `encode`.
            allowed_special: See `encode`.
            disallowed_special: See `encode`.
            num_threads: One for each usable core if None.

        Returns:
            `ids`, int32 [tokens of all texts], and `bounds`, int64 [texts + 1].

        Raises:
            TokenizationError: See `encode`.
        """
        _check_texts(texts)
        _check_threads(num_threads)
        return self._text_encoder.encode_batch(
            texts, allowed_special, disallowed_special, num_threads
        )

    def encode_bytes(
        self,
        data: Buffer,
        *,
        allowed_special: AllowedSpecial = NO_TOKENS,
        disallowed_special: DisallowedSpecial = (),
        num_threads: int | None = None,
    ) -> NDArray[np.int32]:
        """The ids of a UTF-8 text that lies in memory or in a mapped file.

        No string is made of it, unless it is to be cleaned or there are tokens to look for.

        >>> codec.encode_bytes("猫である".encode()).tolist() == codec.encode("猫である")
        True

        Args:
            data: UTF-8, without a byte order mark, its bytes side by side.
            allowed_special: See `encode`.
            disallowed_special: See `encode`.
            num_threads: One for each usable core if None.

        Returns:
            int32 [tokens].

        Raises:
            TokenizationError: The bytes are not UTF-8; the message names the first bad one. Or see
                `encode`.
        """
        if isinstance(data, np.ndarray):
            fits = data.ndim == 1 and data.dtype == np.uint8 and data.flags.c_contiguous
        elif isinstance(data, memoryview):
            fits = data.ndim == 1 and data.itemsize == 1 and data.c_contiguous
        else:
            fits = isinstance(data, (bytes, bytearray, mmap.mmap))
        if not fits:
            raise TokenizationError(
                f"data is {short_repr(data)}; it must be bytes, or a uint8 array [bytes], without"
                " gaps; pass bytes(data)"
            )
        _check_threads(num_threads)
        return self._text_encoder.encode_bytes(
            data, allowed_special, disallowed_special, num_threads
        )

    def _set_added(self, added: AddedTokens | None) -> None:
        super()._set_added(added)
        self._special = SpecialTokens(self.vocabulary, self._added, self._foreign)
        self._text_encoder = TextEncoder(self._vocabulary_encoder, self._special)


def _check_texts(texts: Sequence[str]) -> None:
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise TokenizationError(f"texts is {short_repr(texts)}; it must be a list of strings")
    for text in texts:
        check_text("one of the texts", text, TokenizationError)


def _check_threads(num_threads: int | None) -> None:
    if num_threads is not None:
        check_integer("num_threads", num_threads, TokenizationError, minimum=1, maximum=1024)
