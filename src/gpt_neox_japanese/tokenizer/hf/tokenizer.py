"""`GPTNeoXJapaneseTokenizer`: `Codec` with the interface of transformers' tokenizers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn, Self

from tokenizers import AddedToken
from transformers import AutoTokenizer, BatchEncoding
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING
from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseConfig as InTreeConfig
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils.generic import PaddingStrategy

from gpt_neox_japanese.errors import TokenizationError
from gpt_neox_japanese.tokenizer.added_tokens import AddedTokens
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.tokenizer.decoding import StreamDecoder
from gpt_neox_japanese.tokenizer.hf.alignment import Alignment, Alignments
from gpt_neox_japanese.tokenizer.hf.columns import align, columns, encode_one
from gpt_neox_japanese.tokenizer.hf.inputs import read_samples
from gpt_neox_japanese.tokenizer.hf.loading import explain_load_errors, require_files
from gpt_neox_japanese.tokenizer.hf.marked_chats import MarkedChatEncoder
from gpt_neox_japanese.tokenizer.hf.options import CheckedTokenizer, check_options
from gpt_neox_japanese.tokenizer.hf.rows import (
    Encoder,
    Padding,
    TextBatch,
    Truncation,
    padded_width,
)
from gpt_neox_japanese.tokenizer.hf.rust_backend import decode_only_tokenizer
from gpt_neox_japanese.tokenizer.hf.token_names import TokenTable
from gpt_neox_japanese.tokenizer.special_tokens import NO_TOKENS, AllowedSpecial
from gpt_neox_japanese.tokenizer.token_names import TokenNames
from gpt_neox_japanese.tokenizer.tokenizer_config import write_added_tokens
from gpt_neox_japanese.tokenizer.vocabulary import EMOJI_FILE, VOCAB_FILE, Vocabulary

__all__ = ["GPTNeoXJapaneseTokenizer"]

_ENCODING_OPTIONS = {"unk_token", "unk_token_id", "do_clean_text", "legacy"}


class GPTNeoXJapaneseTokenizer(CheckedTokenizer):
    """Tokenizer of GPT-NeoX-Japanese, with transformers' names and arguments.

    An id is named by the text that it decodes to (`"慶応"`, `" "`), a byte by `"<0xE3>"`.
    `tokenize` gives what was written (`"慶應"`), and tags (`"<SP>"`, `"<|byte227|>"`). Text that is
    decoded keeps its whitespace, and characters that were written as bytes come back whole.
    Nothing is added to a text by itself, neither beginning nor end.

    Args:
        vocab_file: Path of `vocab.txt`.
        emoji_file: Path of `emoji.json`.
        unk_token: Stands for characters whose byte tokens the vocabulary lacks. Like the next
            three it is added if the vocabulary does not hold it, and there is none if it is None.
        pad_token: Fills up the shorter texts of a batch.
        bos_token: Begins a text; never added by itself.
        eos_token: Ends a text; never added by itself.
        do_clean_text: Replace URLs, addresses, telephone numbers, dates, prices and box drawing
            by tags.
        legacy: Give exactly the ids of transformers' own class. `False` is for vocabularies made
            by `neox-ja vocab build`; see `Codec`.
        **kwargs: What every transformers tokenizer takes (`padding_side`, `model_max_length`, …).
            With `split_special_tokens=True` no text becomes a control id, whatever it spells out.

    Attributes:
        codec: Encodes and decodes without transformers; knows nothing of added tokens.

    Raises:
        VocabularyError: A file is missing or broken.
        TokenizationError: An option is nonsense, or asks for what this tokenizer does not do.
    """

    vocab_files_names = {"vocab_file": VOCAB_FILE, "emoji_file": EMOJI_FILE}  # noqa: RUF012
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(
        self,
        vocab_file: str | Path,
        emoji_file: str | Path,
        unk_token: str | AddedToken | None = "<|endoftext|>",
        pad_token: str | AddedToken | None = "<|endoftext|>",
        bos_token: str | AddedToken | None = "<|startoftext|>",
        eos_token: str | AddedToken | None = "<|endoftext|>",
        do_clean_text: bool = False,
        legacy: bool = True,
        **kwargs: Any,
    ) -> None:
        files = {"vocab_file": vocab_file, "emoji_file": emoji_file}
        require_files(files, self.vocab_files_names, kwargs.get("name_or_path"))
        check_options({"do_clean_text": do_clean_text, "legacy": legacy, **kwargs})
        for option in ("add_bos_token", "add_eos_token"):  # false, or they were refused
            kwargs.pop(option, None)
        kwargs.pop("tokenizer_file", None)  # the two files above are the vocabulary
        self.do_clean_text = do_clean_text
        self.legacy = legacy
        vocabulary = Vocabulary.from_files(vocab_file, emoji_file)
        added = TokenTable(TokenNames(vocabulary), kwargs.pop("added_tokens_decoder", None) or {})
        self._set_tokens(added.plus((unk_token, pad_token, bos_token, eos_token), special=True))
        self._set_codec(vocabulary, self._tokens.find(unk_token))
        super().__init__(  # type: ignore[no-untyped-call]
            unk_token=unk_token,
            pad_token=pad_token,
            bos_token=bos_token,
            eos_token=eos_token,
            do_clean_text=do_clean_text,
            legacy=legacy,
            **kwargs,
        )
        self._set_encoder()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | PathLike[str], *args: Any, **kwargs: Any
    ) -> Self:
        """Load a tokenizer from a directory or the Hub; the arguments are those of transformers.

        Args:
            pretrained_model_name_or_path: A directory, or a Hub id.
            *args: As in transformers.
            **kwargs: As in transformers (`revision`, `cache_dir`, `token`, …).

        Returns:
            The tokenizer.

        Raises:
            VocabularyError: (a `ValueError`) A file is missing or broken.
            OSError: There is no such directory or Hub id, or the Hub cannot be reached.
        """
        with explain_load_errors(pretrained_model_name_or_path, cls.vocab_files_names, kwargs):
            tokenizer: Self = super().from_pretrained(
                pretrained_model_name_or_path, *args, **kwargs
            )
        return tokenizer

    @classmethod
    def convert_to_native_format(cls, **kwargs: Any) -> Any:  # type: ignore[override]
        """Leave the arguments of a saved tokenizer as they are; `vocab.txt` needs no conversion.

        Args:
            **kwargs: Arguments of the tokenizer.

        Returns:
            The same arguments.
        """
        return kwargs

    def train_new_from_iterator(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: vocabularies of this kind are made of whole corpora, by `neox-ja vocab build`.

        Args:
            *args: Not used.
            **kwargs: Not used.

        Returns:
            Never.

        Raises:
            TokenizationError: Always.
        """
        raise TokenizationError(
            "train_new_from_iterator makes no vocabulary of this kind; write the texts into a file"
            " and use: neox-ja vocab build FILE --size N --output DIR"
        )

    # Ids and tokens

    @property
    def vocab_size(self) -> int:
        """Number of ids in the vocabulary files, added tokens not counted."""
        return len(self._tokens.names.forms)

    def __len__(self) -> int:
        return len(self._tokens)

    def get_vocab(self) -> dict[str, int]:
        """One name for every id, the added tokens included: `" "`, not `"<SP>"`; `"<0xE3>"`."""
        return self._tokens.vocab()

    def convert_ids_to_tokens(
        self, ids: int | Iterable[int], skip_special_tokens: bool = False
    ) -> str | list[str]:
        """The token of an id, or the tokens of several.

        Args:
            ids: One id, or several.
            skip_special_tokens: Leave special tokens out of a list.

        Returns:
            A token, or a list of them.

        Raises:
            TokenizationError: An id is outside the vocabulary.
        """
        if isinstance(ids, int):
            return self._convert_id_to_token(ids)
        skipped = self._special_ids() if skip_special_tokens else ()
        return [self._convert_id_to_token(int(i)) for i in ids if int(i) not in skipped]

    def _convert_id_to_token(self, index: int) -> str:
        return self._tokens.name(index)

    def _convert_token_to_id_with_added_voc(  # type: ignore[override]  # None: no unknown token
        self, token: str
    ) -> int | None:
        token_id = self._tokens.find(token)
        return self._tokens.find(self.unk_token) if token_id is None else token_id

    def get_special_tokens_mask(
        self,
        token_ids_0: list[int],
        token_ids_1: list[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 for each special token among the ids; none would be added to ids of plain text.

        Args:
            token_ids_0: Ids.
            token_ids_1: More ids, of the second text of a pair.
            already_has_special_tokens: Whether special tokens among the ids count.

        Returns:
            0 or 1 for each id.
        """
        special = set(self.all_special_ids) if already_has_special_tokens else ()
        return [int(i in special) for i in (*token_ids_0, *(token_ids_1 or ()))]

    def _special_ids(self) -> set[int]:
        return {*self.all_special_ids, *self._tokens.special_ids()}

    # Added tokens

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Ids → added tokens; special tokens of the vocabulary are among them."""
        return dict(self._tokens.added)

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """Added tokens → ids; special tokens of the vocabulary are among them."""
        return dict(self._tokens.added_ids)

    def _add_tokens(
        self, new_tokens: Sequence[str | AddedToken], special_tokens: bool = False
    ) -> int:
        before = len(self)
        self._set_tokens(self._tokens.plus(new_tokens, special=special_tokens))
        self._set_encoder()
        extra = self._tokens.special_ids().difference(self.all_special_ids)
        ids = dict.fromkeys(map(self._tokens.find, new_tokens))
        self._extra_special_tokens += [self._tokens.added[i] for i in ids if i in extra]
        return len(self) - before

    def _set_tokens(self, tokens: TokenTable) -> None:
        self._tokens = tokens
        # Not changed but made anew: copies of this tokenizer share it.
        self._tokenizer = decode_only_tokenizer(tokens.decoded(), tokens.special_ids())

    def __setattr__(self, key: str, value: Any) -> None:
        super().__setattr__(key, value)
        if key in _ENCODING_OPTIONS and hasattr(self, "_encoder"):
            self._set_encoder()

    def __getstate__(self) -> dict[str, Any]:
        # What was warned of already is no part of a tokenizer: use must not change its pickle.
        return {**vars(self), "deprecation_warnings": {}}

    def _set_codec(self, vocabulary: Vocabulary, unknown: int | None) -> None:
        legacy, clean = self.legacy, self.do_clean_text
        added = AddedTokens(self._tokens.added)  # the unknown token may be one of them
        codec = Codec(vocabulary, legacy=legacy, clean=clean, unknown=unknown, added=added)
        self.codec = codec.with_added(AddedTokens({}))
        self._options = (legacy, clean, unknown)

    def _set_encoder(self) -> None:
        """Encode from now on with the options and the added tokens that there are now."""
        unknown = self._tokens.find(self.unk_token)
        if self.unk_token is not None and unknown is None:
            unknown = self._options[-1]  # `add_special_tokens` names a token first, then adds it
        if (self.legacy, self.do_clean_text, unknown) != self._options:
            self._set_codec(self.codec.vocabulary, unknown)
        self._encoder = self.codec.with_added(AddedTokens(self._tokens.added))

    # Text to ids

    def _encode_plus(
        self,
        text: Any,
        text_pair: Any = None,
        add_special_tokens: bool = True,
        padding_strategy: PaddingStrategy = PaddingStrategy.DO_NOT_PAD,
        truncation_strategy: TruncationStrategy = TruncationStrategy.DO_NOT_TRUNCATE,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: Any = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        split_special_tokens: bool | None = None,
        **kwargs: Any,
    ) -> BatchEncoding:
        encoder: Encoder = self._encoder
        if kwargs.pop("sanitize_control_tokens", False):  # by `apply_chat_template`
            encoder = MarkedChatEncoder(self._encoder, self.codec)
        if kwargs:
            raise TokenizationError(f"unknown options {sorted(kwargs)}; leave them out")
        if split_special_tokens is None:
            split_special_tokens = self.split_special_tokens
        allowed_special: AllowedSpecial = NO_TOKENS if split_special_tokens else "all"
        if return_attention_mask is None:
            return_attention_mask = "attention_mask" in self.model_input_names
        if (
            isinstance(text, str)
            and encoder is self._encoder
            and text_pair is None
            and return_tensors is None
            and padding_strategy is PaddingStrategy.DO_NOT_PAD
            and truncation_strategy is TruncationStrategy.DO_NOT_TRUNCATE
            and not (is_split_into_words or return_token_type_ids or return_overflowing_tokens)
            and not (return_special_tokens_mask or return_offsets_mapping or return_length)
        ):
            encoding = encode_one(
                text, self._encoder, self._tokens, allowed_special, return_attention_mask
            )
            self._eventual_warn_about_too_long_sequence(encoding["input_ids"], max_length, verbose)
            return encoding
        samples, is_batch = read_samples(text, text_pair, split_into_words=is_split_into_words)
        truncation = None
        if truncation_strategy is not TruncationStrategy.DO_NOT_TRUNCATE and max_length is not None:
            side, keep_rest = self.truncation_side, return_overflowing_tokens
            truncation = Truncation(truncation_strategy, max_length, stride, side, keep_rest)
        batch = TextBatch(samples, encoder, allowed_special=allowed_special, truncation=truncation)
        ids = batch.input_ids()
        self._eventual_warn_about_too_long_sequence(
            max(ids, key=len, default=[]), max_length, verbose
        )
        padding = Padding(
            padded_width(ids, padding_strategy, max_length, pad_to_multiple_of),
            padding_side or self.padding_side,
        )
        wanted = {
            "token_type_ids": return_token_type_ids,
            "attention_mask": return_attention_mask,
            "special_tokens_mask": return_special_tokens_mask,
            "offset_mapping": return_offsets_mapping,
            "length": return_length,
            "overflow_to_sample_mapping": return_overflowing_tokens,
        }
        pad_id = self.pad_token_id if padding.width else None
        data = columns(
            batch,
            ids,
            [k for k, v in wanted.items() if v or (v is None and k in self.model_input_names)],
            padding,
            pad_id=pad_id,
            pad_type_id=self.pad_token_type_id,
        )
        if not is_batch and return_tensors is None and not return_overflowing_tokens:
            data = {name: column[0] for name, column in data.items()}

        def align_row(number: int) -> Alignment:
            return align(batch.rows[number], self._tokens, padding, pad_id, self.pad_token)

        return BatchEncoding(
            data,
            Alignments(len(ids), align_row),  # type: ignore[arg-type]
            tensor_type=return_tensors,
            n_sequences=max(map(len, samples), default=1),
        )

    def _get_control_tokens(self, chat_template: str) -> tuple[str, ...]:
        added = super()._get_control_tokens(chat_template)
        return tuple(sorted({*self._encoder.special_tokens_set, *added}))

    # Ids to text

    def stream_decoder(self, *, skip_special_tokens: bool = False) -> StreamDecoder:
        """A decoder that is fed one id at a time and gives text as soon as it is complete.

        Args:
            skip_special_tokens: Leave special tokens out of the text.

        Returns:
            A decoder for one sequence.
        """
        skipped = self._special_ids() if skip_special_tokens else ()
        return self._encoder.stream_decoder(skip=skipped)

    def _decode(
        self,
        token_ids: int | list[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **kwargs: Any,
    ) -> str:
        if kwargs:
            raise TokenizationError(f"unknown options {sorted(kwargs)}; leave them out")
        ids = [token_ids] if isinstance(token_ids, int) else token_ids
        if skip_special_tokens:
            skipped = self._special_ids()
            ids = [i for i in ids if i not in skipped]
        added = self._tokens.foreign
        text = "".join(
            "".join(map(added.__getitem__, run)) if is_added else self.codec.decode(list(run))
            for is_added, run in groupby(ids, added.__contains__)
        )
        if clean_up_tokenization_spaces is None:
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
        return self.clean_up_tokenization(text) if clean_up_tokenization_spaces else text

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text that tokens stand for; whitespace kept, bytes joined into characters.

        Args:
            tokens: Any names of tokens; what is none stays as it is.

        Returns:
            The text.
        """
        stream = self.stream_decoder()
        text = []
        for token in tokens:
            token_id = self._tokens.find(token)
            text.append(stream.finish() + token if token_id is None else stream.feed(token_id))
        return "".join(text) + stream.finish()

    # Files

    def save_vocabulary(  # type: ignore[override]  # the base class has one file
        self, save_directory: str, filename_prefix: str | None = None
    ) -> tuple[str, str]:
        """Write `vocab.txt` and `emoji.json`, and return their paths.

        Args:
            save_directory: Made if need be.
            filename_prefix: What the names of the files begin with.

        Returns:
            The paths of both files.
        """
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        directory = Path(save_directory)
        directory.mkdir(parents=True, exist_ok=True)
        vocab_file, emoji_file = self.codec.vocabulary.save_files(
            directory / f"{prefix}{VOCAB_FILE}", directory / f"{prefix}{EMOJI_FILE}"
        )
        return str(vocab_file), str(emoji_file)

    def _save_pretrained(
        self,
        save_directory: str | PathLike[Any],
        file_names: tuple[str, ...],
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
    ) -> tuple[str, ...]:
        # The base class leaves added tokens to tokenizer.json, which would hold half of this
        # tokenizer and make others believe that they can read all of it.
        tokens = {i: token.__getstate__() for i, token in self._tokens.added.items()}
        write_added_tokens(Path(file_names[0]), tokens)
        return file_names + self.save_vocabulary(str(save_directory), filename_prefix)


# Published directories name this class, or only their model type; both lead to ours from now on.
# `register` takes care of the name. For the type it would need to know every configuration class
# of that type, and up to transformers 5.16 it ignores the one that transformers has itself. So the
# table of tokenizers is told to look into this module for that type.
AutoTokenizer.register(InTreeConfig, tokenizer_class=GPTNeoXJapaneseTokenizer, exist_ok=True)
TOKENIZER_MAPPING._modules[InTreeConfig.model_type] = sys.modules[__name__]
