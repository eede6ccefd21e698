"""Ids to text: tags become what they stand for, byte tokens become characters again."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.checks import short_repr
from gpt_neox_japanese.errors import TokenizationError, VocabularyError
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

__all__ = ["Decoder", "StreamDecoder"]

# Classes of many characters are written as one of them.
_TEXT_OF_TAG = {
    "<SP>": " ",
    "<BR>": "\n",
    "<TAB>": "\t",
    "<BLOCK>": "▀",
    "<KIGOU>": "ǀ",
    "<U2000U2BFF>": "‖",
}
_BYTE_OF_TAG = {f"<|byte{byte}|>": bytes([byte]) for byte in range(256)}

# Fewer ids are decoded sooner than the compiled kernel is loaded.
_IDS_BEFORE_KERNEL = 10_000


class Decoder:
    """Turns ids into text. Whitespace is kept, and bytes are joined before they are decoded.

    Args:
        vocabulary: What ids stand for.
        added: id → text of tokens that are not in it, or that took the place of one.

    Raises:
        VocabularyError: An emoji to decode to is no text.
    """

    def __init__(self, vocabulary: Vocabulary, added: Mapping[int, str] | None = None) -> None:
        text_of_tag = {**_TEXT_OF_TAG, **vocabulary.emoji_inv}
        for tag, text in text_of_tag.items():
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise VocabularyError(
                    f"'emoji_inv' maps {tag!r} to {text!r}, half of a surrogate pair; write the"
                    " whole character"
                )
        self._decoded: list[str | bytes] = [
            _BYTE_OF_TAG.get(forms[0]) or text_of_tag.get(forms[0], forms[0])
            for forms in vocabulary.surfaces
        ]
        added = added or {}
        size = len(self._decoded)
        self._decoded += [""] * (max(added, default=-1) + 1 - size)
        for token_id, text in added.items():
            self._decoded[token_id] = text
        # Where ids were skipped, nothing stands for them.
        self._missing = frozenset(range(size, len(self._decoded))) - added.keys()

    def decode_token(self, token_id: int) -> str | bytes:
        """What one id stands for: text, or a single byte of a character.

        Args:
            token_id: An id.

        Returns:
            Its text, or its byte.

        Raises:
            TokenizationError: No such id.
        """
        if not isinstance(token_id, (int, np.integer)):
            raise TokenizationError(f"{short_repr(token_id)} is no id; ids are integers")
        if not 0 <= token_id < len(self._decoded):
            raise TokenizationError(
                f"id {short_repr(token_id)} is outside the vocabulary;"
                f" ids are 0 to {len(self._decoded) - 1}"
            )
        if token_id in self._missing:
            raise TokenizationError(
                f"id {token_id} has no token; name it in added_tokens_decoder of"
                " tokenizer_config.json"
            )
        return self._decoded[token_id]

    def decode_bytes(self, ids: Iterable[int] | NDArray[np.integer]) -> bytes | memoryview:
        """The UTF-8 bytes that a sequence of ids stands for, which may break off in a character.

        Args:
            ids: Any integers, [tokens].

        Returns:
            All bytes, one id's after the other's.

        Raises:
            TokenizationError: An id is outside the vocabulary, or what was given is no ids.
        """
        if not isinstance(ids, Iterable):
            raise TokenizationError(f"ids must be a list or an array, not {short_repr(ids)}")
        ids = ids if hasattr(ids, "__len__") else list(ids)
        try:
            array = np.asarray(ids)
        except ValueError as error:  # lists of several lengths
            raise TokenizationError(
                f"ids must be integers in a row, not {short_repr(ids)}"
            ) from error
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            for each in ids if array.ndim == 1 else ():
                self.decode_token(each)  # names one that is no integer, or longer than any id
            raise TokenizationError(
                f"ids must be integers in a row, not {array.dtype} of shape {array.shape}"
            )
        if array.size:
            self.decode_token(int(array.min()))
            self.decode_token(int(array.max()))
            for token_id in self._missing.intersection(array.tolist() if self._missing else ()):
                self.decode_token(token_id)
        if len(array) < _IDS_BEFORE_KERNEL:
            token_bytes = self._utf8
            return b"".join([token_bytes[i] for i in array.tolist()])

        from gpt_neox_japanese.tokenizer.kernels import encode

        begins, token_bytes_joined = self._joined_utf8
        text = np.empty(int((begins[1:] - begins[:-1])[array].sum()), dtype=np.uint8)
        encode.decode(array.astype(np.int32), begins, token_bytes_joined, text)
        return text.data

    def decode(self, ids: Iterable[int] | NDArray[np.integer], errors: str = "replace") -> str:
        """The text of a sequence of ids.

        All tokens are joined as UTF-8 and decoded at once. That is the same as decoding each run of
        byte tokens on its own: text begins with a byte that begins a character, and there a decoder
        gives up a character left incomplete, as it does at the end of the run.

        Args:
            ids: See `Codec.decode`.
            errors: See `Codec.decode`.

        Returns:
            See `Codec.decode`.

        Raises:
            TokenizationError: See `Codec.decode`.
            UnicodeDecodeError: See `Codec.decode`.
        """
        data = self.decode_bytes(ids)
        try:
            return str(data, "utf-8", errors)
        except (LookupError, TypeError) as error:
            raise TokenizationError(
                f"errors is {short_repr(errors)}; it must be 'replace', 'ignore' or 'strict'"
            ) from error

    def stream(
        self,
        *,
        errors: Literal["replace", "ignore"] = "replace",
        skip: Collection[int] = (),
    ) -> StreamDecoder:
        """A decoder that is fed one id at a time.

        Args:
            errors: Whether bytes that form no character become U+FFFD or nothing.
            skip: Ids that give no text.

        Returns:
            A decoder for one sequence.

        Raises:
            TokenizationError: `errors` is something else.
        """
        if errors not in ("replace", "ignore"):
            raise TokenizationError(
                f"errors is {short_repr(errors)}; it must be 'replace' or 'ignore'"
            )
        return StreamDecoder(self, errors, skip)

    def __getstate__(self) -> dict[str, object]:
        """Nothing that is made again when it is needed; states are alike whatever was decoded."""
        return {"_decoded": self._decoded, "_missing": self._missing}

    @cached_property
    def _utf8(self) -> list[bytes]:
        return [
            token if isinstance(token, bytes) else token.encode("utf-8", "replace")
            for token in self._decoded
        ]

    @cached_property
    def _joined_utf8(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Where each id's bytes begin, int64 [ids + 1], and all bytes, uint8."""
        sizes = np.fromiter(map(len, self._utf8), dtype=np.int64, count=len(self._utf8))
        begins = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])
        return begins, np.frombuffer(bytearray(b"".join(self._utf8)), dtype=np.uint8)


class StreamDecoder:
    """Text as soon as its characters are complete; nothing is lost and nothing is shown early.

    Made by `Codec.stream_decoder`, where there is an example.

    Args:
        decoder: What ids stand for.
        errors: What bytes that form no character become: U+FFFD ("replace") or nothing ("ignore").
        skip: Ids that give no text.
    """

    def __init__(self, decoder: Decoder, errors: str, skip: Collection[int] = ()) -> None:
        self._decoder = decoder
        self._skip = skip
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors=errors)
        self._inside_character = False

    def feed(self, token_id: int) -> str:
        """Take the next id.

        Args:
            token_id: An id of the vocabulary or of an added token.

        Returns:
            The text that this id completes; empty inside a character.

        Raises:
            TokenizationError: There is no such id.
        """
        if token_id in self._skip:
            return ""
        decoded = self._decoder.decode_token(token_id)
        if isinstance(decoded, str):
            return self._end_of_bytes() + decoded if self._inside_character else decoded
        self._inside_character = True
        return self._utf8.decode(decoded)

    @property
    def num_pending(self) -> int:
        """How many of the last ids are bytes of a character that may still be completed."""
        return len(self._utf8.getstate()[0])

    def finish(self) -> str:
        """What is left at the end, where a character was begun and never completed.

        Returns:
            The text that is left, mostly none.
        """
        return self._end_of_bytes()

    def _end_of_bytes(self) -> str:
        if not self._inside_character:
            return ""
        self._inside_character = False
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest
