"""What ids mean: the half of `Codec` that starts from ids, which needs no encoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.checks import short_repr
from gpt_neox_japanese.errors import TokenizationError, VocabularyError
from gpt_neox_japanese.tokenizer.added_tokens import AddedTokens, TokenFlags
from gpt_neox_japanese.tokenizer.decoding import Decoder, StreamDecoder
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

__all__ = ["END_OF_TEXT", "TokenIds"]

END_OF_TEXT = "<|endoftext|>"


class TokenIds:
    """The ids of a vocabulary and of the tokens added to it: their names, bytes and text.

    Examples in the docstrings are of a `Codec`, which has all these methods.

    Args:
        vocabulary: Surface forms and emoji.
        added: Tokens beyond the vocabulary, and special tokens of the vocabulary.

    Attributes:
        vocabulary: As above.
    """

    def __init__(self, vocabulary: Vocabulary, added: AddedTokens | None = None) -> None:
        self.vocabulary = vocabulary
        self._set_added(added)

    @property
    def n_vocab(self) -> int:
        """The number of ids, those of added tokens included; so is `len(codec)`."""
        return max(len(self.vocabulary), 1 + max(self._added.tokens, default=-1))

    def __len__(self) -> int:
        return self.n_vocab

    @property
    def added_tokens(self) -> AddedTokens:
        """Tokens beyond the vocabulary, and special tokens of the vocabulary."""
        return self._added

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of special tokens that were added or named, which stand for no text."""
        return self._added.special_ids

    @property
    def eot_token(self) -> int:
        """The id of `<|endoftext|>`, which ends a document.

        Raises:
            VocabularyError: There is none.
        """
        token_id = self.token_to_id(END_OF_TEXT)
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

    def id_to_token(self, token_id: int) -> str:
        """The name of an id: its canonical form, or how the added token is written.

        >>> codec.id_to_token(codec.eot_token)
        '<|endoftext|>'

        Args:
            token_id: An id.

        Returns:
            The name; `token_to_id` leads back.

        Raises:
            TokenizationError: There is no such id.
        """
        self._decoder.decode_token(token_id)
        added = self._added.tokens.get(token_id)
        return self.vocabulary.name(token_id) if added is None else added.content

    def token_to_id(self, token: str) -> int | None:
        """The id of a tag, a form, or an added token.

        An added token that took the id of a form has also taken it from that form.

        Args:
            token: How it is written.

        Returns:
            The id; None if there is none.
        """
        token_id = self._added.ids.get(token, self.vocabulary.ids.get(token))
        if token_id in self._foreign and self._foreign[token_id] != token:
            return None
        return token_id

    def decode(self, ids: Iterable[int] | NDArray[np.integer], errors: str = "replace") -> str:
        """The text of a sequence of ids.

        Args:
            ids: Any integers, [tokens].
            errors: What bytes that form no character become, as in `bytes.decode`: U+FFFD, or
                nothing with "ignore"; with "strict" they are an error.

        Returns:
            The text, whitespace kept.

        Raises:
            TokenizationError: An id is outside the vocabulary, what was given is no ids, or
                `errors` is something else.
            UnicodeDecodeError: Bytes form no character, and `errors` is "strict".
        """
        return self._decoder.decode(ids, errors)

    def decode_bytes(self, ids: Iterable[int] | NDArray[np.integer]) -> bytes:
        r"""The UTF-8 bytes that a sequence of ids stands for.

        >>> codec.decode_bytes(codec.encode("한")[:1])  # the first of the character's three bytes
        b'\xed'

        Args:
            ids: Any integers, [tokens].

        Returns:
            The bytes, which may begin or end inside a character.

        Raises:
            TokenizationError: An id is outside the vocabulary, or what was given is no ids.
        """
        return bytes(self._decoder.decode_bytes(ids))

    def decode_single_token_bytes(self, token_id: int) -> bytes:
        """The bytes that one id stands for, special tokens too.

        Args:
            token_id: An id.

        Returns:
            UTF-8, or one byte of a character.

        Raises:
            TokenizationError: There is no such id.
        """
        return bytes(self._decoder.decode_bytes([token_id]))

    def decode_batch(self, sequences: Iterable[Iterable[int] | NDArray[np.integer]]) -> list[str]:
        """The texts of several sequences of ids.

        Args:
            sequences: Lists or arrays of ids, each [tokens], or a `Ragged`.

        Returns:
            Their texts, in order.

        Raises:
            TokenizationError: An id is outside the vocabulary, or what was given is no lists of
                ids.
        """
        if not isinstance(sequences, Iterable):
            raise TokenizationError(f"{short_repr(sequences)} is no list of lists of ids")
        return [self.decode(ids) for ids in sequences]

    def stream_decoder(
        self,
        *,
        errors: Literal["replace", "ignore"] = "replace",
        skip: Collection[int] = (),
    ) -> StreamDecoder:
        """A decoder that is fed one id at a time and gives text as soon as it is complete.

        >>> stream = codec.stream_decoder()
        >>> [stream.feed(i) for i in codec.encode("猫한")]
        ['猫', '', '', '한']
        >>> stream.finish()
        ''

        Args:
            errors: Whether bytes that form no character become U+FFFD or nothing.
            skip: Ids that give no text, such as `special_ids`.

        Returns:
            A decoder for one sequence.

        Raises:
            TokenizationError: `errors` is something else.
        """
        return self._decoder.stream(errors=errors, skip=skip)

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

    @property
    def _beyond_vocabulary(self) -> dict[int, TokenFlags]:
        """Added tokens without special tokens of the vocabulary, whose ids and text are its own.

        Those of them with a flag, which changes what they are in a text, are not left out.
        """
        return {
            i: token
            for i, token in self._added.tokens.items()
            if i in self._foreign
            or not token.special
            or (token.lstrip or token.rstrip or token.single_word)
        }
