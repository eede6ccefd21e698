"""`GPTNeoXJapaneseTokenizer`: the face that transformers sees. The work is done by `Codec`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from transformers import AutoTokenizer, BatchEncoding, TokenizersBackend
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING
from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseConfig as InTreeConfig
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils.generic import PaddingStrategy

from gpt_neox_japanese.errors import TokenizationError, VocabularyError
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.tokenizer.decoding import Decoder
from gpt_neox_japanese.tokenizer.hf_added import TextEncoder
from gpt_neox_japanese.tokenizer.hf_alignment import Alignment, Alignments
from gpt_neox_japanese.tokenizer.hf_backend import decode_only_tokenizer
from gpt_neox_japanese.tokenizer.hf_input import read_samples
from gpt_neox_japanese.tokenizer.hf_rows import (
    Batch,
    Padding,
    Row,
    Truncation,
    offsets,
    padded_width,
    sequence_ids,
)
from gpt_neox_japanese.tokenizer.hf_stream import TokenStream
from gpt_neox_japanese.tokenizer.vocabulary import EMOJI_FILE, VOCAB_FILE, Vocabulary

__all__ = ["GPTNeoXJapaneseTokenizer"]


class GPTNeoXJapaneseTokenizer(TokenizersBackend):
    """Tokenizer of GPT-NeoX-Japanese, with transformers' names and arguments.

    A token is the surface form of an id (`"慶応"`, `"<SP>"`, `"<|byte227|>"`). Text that is decoded
    keeps its whitespace, and characters that were written as bytes come back whole. Nothing is
    added to a text by itself, neither beginning nor end.

    Args:
        vocab_file: Path of `vocab.txt`.
        emoji_file: Path of `emoji.json`.
        unk_token: Stands for characters whose byte tokens the vocabulary lacks.
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
        TokenizationError: `add_bos_token` or `add_eos_token` is set.
    """

    vocab_files_names = {"vocab_file": VOCAB_FILE, "emoji_file": EMOJI_FILE}  # noqa: RUF012
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(
        self,
        vocab_file: str | Path,
        emoji_file: str | Path,
        unk_token: str | AddedToken = "<|endoftext|>",
        pad_token: str | AddedToken = "<|endoftext|>",
        bos_token: str | AddedToken = "<|startoftext|>",
        eos_token: str | AddedToken = "<|endoftext|>",
        do_clean_text: bool = False,
        legacy: bool = True,
        **kwargs: Any,
    ) -> None:
        for name, file in (("vocab_file", vocab_file), ("emoji_file", emoji_file)):
            if file is None:
                raise VocabularyError(
                    f"no {self.vocab_files_names[name]} beside the tokenizer; pass {name}=PATH"
                )
        for option in ("add_bos_token", "add_eos_token"):
            if kwargs.pop(option, False):
                raise TokenizationError(
                    f"{option}=True: this tokenizer adds nothing to a text; write the token into it"
                )
        kwargs.pop("tokenizer_file", None)  # the two files above are the vocabulary
        self.do_clean_text = do_clean_text
        self.legacy = legacy
        self.codec = Codec(
            Vocabulary.from_files(vocab_file, emoji_file),
            legacy=legacy,
            clean=do_clean_text,
            unknown=str(unk_token),
        )
        self._token_of = _names(self.codec.vocabulary)
        self._id_of = {token: i for i, token in enumerate(self._token_of)}
        decoder = Decoder(self.codec.vocabulary)
        self._pieces = {i: decoder.piece(i) for i in range(len(self._token_of))}
        self._added = dict(kwargs.pop("added_tokens_decoder", None) or {})
        self._set_added(self._numbered((unk_token, pad_token, bos_token, eos_token), special=True))
        super().__init__(  # type: ignore[no-untyped-call]
            unk_token=unk_token,
            pad_token=pad_token,
            bos_token=bos_token,
            eos_token=eos_token,
            do_clean_text=do_clean_text,
            legacy=legacy,
            **kwargs,
        )

    @classmethod
    def convert_to_native_format(
        cls,
        trust_remote_code: bool = False,  # noqa: ARG003
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Leave the arguments of a saved tokenizer as they are; `vocab.txt` needs no conversion."""
        return kwargs

    # Ids and tokens

    @property
    def vocab_size(self) -> int:
        """Number of ids in the vocabulary files, added tokens not counted."""
        return len(self.codec.vocabulary)

    def __len__(self) -> int:
        return max(self.vocab_size, 1 + max(self._added, default=-1))

    def get_vocab(self) -> dict[str, int]:
        """One token for every id, the added ones included."""
        return self._id_of | self.added_tokens_encoder

    def convert_ids_to_tokens(
        self, ids: int | Iterable[int], skip_special_tokens: bool = False
    ) -> str | list[str]:
        """The token of an id, or the tokens of several.

        Raises:
            TokenizationError: An id is outside the vocabulary.
        """
        if isinstance(ids, int):
            return self._convert_id_to_token(ids)
        skipped = self._special_ids() if skip_special_tokens else ()
        return [self._convert_id_to_token(int(i)) for i in ids if int(i) not in skipped]

    def _convert_id_to_token(self, index: int) -> str:
        if index in self._added:
            return str(self._added[index])
        if not 0 <= index < len(self._token_of):
            raise TokenizationError(
                f"id {index} is outside the vocabulary; ids are 0 to {len(self) - 1}"
            )
        return self._token_of[index]

    def _convert_token_to_id_with_added_voc(  # type: ignore[override]  # None: no unknown token
        self, token: str
    ) -> int | None:
        token_id = self._find(token)
        return self._find(str(self.unk_token)) if token_id is None else token_id

    def _find(self, token: str) -> int | None:
        for ids in (self._added_ids, self._id_of, self.codec.vocabulary.ids):
            if token in ids:
                return ids[token]
        return None

    def _special_ids(self) -> set[int]:
        return {*self.all_special_ids, *(i for i, token in self._added.items() if token.special)}

    # Added tokens

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Ids → added tokens; special tokens of the vocabulary are among them."""
        return dict(self._added)

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """Added tokens → ids; special tokens of the vocabulary are among them."""
        return {token.content: i for i, token in self._added.items()}

    def _add_tokens(
        self, new_tokens: Sequence[str | AddedToken], special_tokens: bool = False
    ) -> int:
        before = len(self)
        self._set_added(self._numbered(new_tokens, special=special_tokens))
        known = self.all_special_tokens
        added = (self._added[self._added_ids[str(token)]] for token in new_tokens if str(token))
        self._extra_special_tokens += [
            token for token in added if token.special and token.content not in known
        ]
        return len(self) - before

    def _numbered(
        self, new_tokens: Iterable[str | AddedToken], *, special: bool
    ) -> dict[int, AddedToken]:
        """The added tokens and `new_tokens`, which keep the ids they have or get the next ones."""
        added = dict(self._added)
        ids = self.get_vocab()
        next_id = len(self)
        for token in new_tokens:
            if not isinstance(token, str | AddedToken):
                raise TokenizationError(f"{token!r:.60} is no token; pass a str or an AddedToken")
            content = str(token)
            if not content:
                continue
            if content not in ids:
                ids[content] = next_id
                next_id += 1
            if isinstance(token, str):
                known = added.get(ids[content])
                token = (
                    known if known and not special else AddedToken(content, normalized=not special)
                )
            if special:
                token = AddedToken(**{**token.__getstate__(), "special": True})
            added[ids[content]] = token
        return added

    def _set_added(self, added: Mapping[int, AddedToken]) -> None:
        # All of it is made anew, because copies of this tokenizer share what there was.
        self._added = dict(sorted(added.items()))
        self._added_ids = self.added_tokens_encoder
        self._foreign = {
            i: token.content
            for i, token in self._added.items()
            if i >= len(self._token_of) or self._token_of[i] != token.content
        }
        self._encoder = TextEncoder(self.codec, self._added)
        self._tokenizer = decode_only_tokenizer(
            self._pieces | self._foreign, {i for i, token in added.items() if token.special}
        )

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
        if kwargs.pop("sanitize_control_tokens", False):
            # A chat with marks around what users typed: the base class encodes it in pieces.
            return super()._encode_plus(
                text,
                padding_strategy=padding_strategy,
                truncation_strategy=truncation_strategy,
                max_length=max_length,
                pad_to_multiple_of=pad_to_multiple_of,
                padding_side=padding_side,
                return_tensors=return_tensors,
                return_attention_mask=return_attention_mask,
                sanitize_control_tokens=True,
            )
        if kwargs:
            raise TokenizationError(f"unknown options {sorted(kwargs)}; leave them out")
        samples, is_batch = read_samples(text, text_pair, split_into_words=is_split_into_words)
        truncation = None
        if truncation_strategy is not TruncationStrategy.DO_NOT_TRUNCATE and max_length is not None:
            side, keep_rest = self.truncation_side, return_overflowing_tokens
            truncation = Truncation(truncation_strategy, max_length, stride, side, keep_rest)
        if split_special_tokens is None:
            split_special_tokens = self.split_special_tokens
        batch = Batch(
            samples, self._encoder, allow_tags=not split_special_tokens, truncation=truncation
        )
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
        data = self._columns(
            batch,
            ids,
            padding,
            [k for k, v in wanted.items() if v or (v is None and k in self.model_input_names)],
        )
        if not is_batch and return_tensors is None and not return_overflowing_tokens:
            data = {name: column[0] for name, column in data.items()}
        return BatchEncoding(
            data,
            Alignments(len(ids), lambda row: self._align(batch.rows[row], padding)),  # type: ignore[arg-type]
            tensor_type=return_tensors,
            n_sequences=max(map(len, samples), default=1),
        )

    def _columns(
        self, batch: Batch, ids: list[list[int]], padding: Padding, names: Sequence[str]
    ) -> dict[str, list[Any]]:
        """Each column that was asked for; one item a row."""
        columns: dict[str, list[Any]] = {
            "input_ids": padding.fill(ids, self.pad_token_id if padding.width else None)
        }
        for name in names:
            match name:
                case "attention_mask":
                    columns[name] = padding.fill([[1] * len(row) for row in ids], 0)
                case "special_tokens_mask":
                    columns[name] = padding.fill([[0] * len(row) for row in ids], 1)
                case "token_type_ids":
                    columns[name] = padding.fill(
                        [sequence_ids(row) for row in batch.rows], self.pad_token_type_id
                    )
                case "offset_mapping":
                    columns[name] = padding.fill([offsets(row) for row in batch.rows], (0, 0))
                case "length":
                    columns[name] = [len(row) for row in columns["input_ids"]]
                case "overflow_to_sample_mapping":
                    columns[name] = batch.sample_of_row
        return columns

    def _align(self, row: Row, padding: Padding) -> Alignment:
        ids = [i for source, start, stop in row for i in source.ids[start:stop]]
        surfaces = [s for source, start, stop in row for s in source.surfaces[start:stop]]
        words = [word for source, start, stop in row for word in source.words[start:stop]]
        tokens = list(map(self._token_text, ids, surfaces))
        pad_id = self.pad_token_id if padding.width else None
        (ids,) = padding.fill([ids], pad_id)
        return Alignment(
            ids,
            padding.fill([tokens], self.pad_token)[0],
            padding.fill([offsets(row)], (0, 0))[0],
            padding.fill([sequence_ids(row)], None)[0],
            padding.fill([words], None)[0],
            n_sequences=len(row),
        )

    def _token_text(self, token_id: int, surface: str) -> str:
        """The token as it was written: 慶應 stays 慶應, though its id is called 慶応."""
        if token_id not in self._added and self.codec.vocabulary.ids.get(surface) == token_id:
            return surface
        return self._convert_id_to_token(token_id)

    def _encode_without_added_tokens(self, text: str) -> list[int]:
        return self._encoder.encode(text, allow_tags=False)

    # Ids to text

    def stream_decoder(self, *, skip_special_tokens: bool = False) -> TokenStream:
        """A decoder that is fed one id at a time and gives text as soon as it is complete.

        Args:
            skip_special_tokens: Leave special tokens out of the text.
        """
        skipped = self._special_ids() if skip_special_tokens else frozenset()
        return TokenStream(self.codec.stream_decoder(), self._foreign, skipped)

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
        text = "".join(
            "".join(map(self._foreign.__getitem__, run))
            if foreign
            else self.codec.decode(list(run))
            for foreign, run in groupby(ids, self._foreign.__contains__)
        )
        if clean_up_tokenization_spaces is None:
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
        return self.clean_up_tokenization(text) if clean_up_tokenization_spaces else text

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text that tokens stand for; whitespace kept, bytes joined into characters."""
        stream = self.stream_decoder()
        text = []
        for token in tokens:
            token_id = self._find(token)
            text.append(stream.finish() + token if token_id is None else stream.feed(token_id))
        return "".join(text) + stream.finish()

    # Files

    def save_vocabulary(  # type: ignore[override]  # the base class has one file
        self, save_directory: str, filename_prefix: str | None = None
    ) -> tuple[str, str]:
        """Write `vocab.txt` and `emoji.json`, and return their paths."""
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
        config_file = Path(file_names[0])
        config = json.loads(config_file.read_text(encoding="utf-8"))
        config["added_tokens_decoder"] = {
            str(i): token.__getstate__() for i, token in self._added.items()
        }
        text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
        config_file.write_text(text + "\n", encoding="utf-8", newline="\n")
        return file_names + self.save_vocabulary(str(save_directory), filename_prefix)


def _names(vocabulary: Vocabulary) -> list[str]:
    """One distinct name for every id: a form that leads back to it, canonical first.

    Ids whose forms all belong to later lines can never be produced; they are named by number.
    """
    ids = vocabulary.ids
    return [
        forms[0]
        if ids[forms[0]] == i
        else next((form for form in forms if ids[form] == i), f"<|id{i}|>")
        for i, forms in enumerate(vocabulary.surfaces)
    ]


# Published directories name this class, or only their model type; both lead to ours from now on.
# `register` takes care of the name. For the type it would need to know every configuration class
# of that type, and up to transformers 5.16 it ignores the one that transformers has itself. So the
# table of tokenizers is told to look into this module for that type.
AutoTokenizer.register(  # type: ignore[no-untyped-call]
    InTreeConfig, tokenizer_class=GPTNeoXJapaneseTokenizer, exist_ok=True
)
TOKENIZER_MAPPING._modules[InTreeConfig.model_type] = sys.modules[__name__]
