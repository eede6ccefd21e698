"""`GPTNeoXJapaneseTokenizer`: the face that transformers sees. The work is done by `Codec`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer
from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseConfig as InTreeConfig
from transformers.tokenization_python import PreTrainedTokenizer

from gpt_neox_japanese.errors import TokenizationError, VocabularyError
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.tokenizer.vocabulary import EMOJI_FILE, VOCAB_FILE, Vocabulary

__all__ = ["GPTNeoXJapaneseTokenizer"]


class GPTNeoXJapaneseTokenizer(PreTrainedTokenizer):
    """Tokenizer of GPT-NeoX-Japanese, with transformers' names and arguments.

    A token is the surface form of an id (`"慶応"`, `"<SP>"`, `"<|byte227|>"`). Text that is decoded
    keeps its whitespace, and characters that were written as bytes come back whole.

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

    Raises:
        VocabularyError: A file is missing or broken.
    """

    vocab_files_names = {"vocab_file": VOCAB_FILE, "emoji_file": EMOJI_FILE}  # noqa: RUF012
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(
        self,
        vocab_file: str | Path,
        emoji_file: str | Path,
        unk_token: str = "<|endoftext|>",
        pad_token: str = "<|endoftext|>",
        bos_token: str = "<|startoftext|>",
        eos_token: str = "<|endoftext|>",
        do_clean_text: bool = False,
        legacy: bool = True,
        **kwargs: Any,
    ) -> None:
        for name, file in (("vocab_file", vocab_file), ("emoji_file", emoji_file)):
            if file is None:
                raise VocabularyError(
                    f"no {self.vocab_files_names[name]} beside the tokenizer; pass {name}=PATH"
                )
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
        super().__init__(  # type: ignore[no-untyped-call]
            unk_token=unk_token,
            pad_token=pad_token,
            bos_token=bos_token,
            eos_token=eos_token,
            do_clean_text=do_clean_text,
            legacy=legacy,
            special_tokens_pattern="none",
            **kwargs,
        )

    @property
    def vocab_size(self) -> int:
        """Number of ids in the vocabulary files, added tokens not counted."""
        return len(self.codec.vocabulary)

    def get_vocab(self) -> dict[str, int]:
        """One token for every id, the added ones included."""
        return {**self._id_of, **self.added_tokens_encoder}

    def tokenize(  # type: ignore[override]  # as its own subclass PreTrainedTokenizer has it
        self, text: str, **kwargs: Any
    ) -> list[str]:
        """The tokens of a text.

        Args:
            text: Any string of Unicode scalar values.
            **kwargs: `split_special_tokens=True` reads tags spelled out in the text as plain text.

        Raises:
            TokenizationError: The text holds a lone surrogate.
        """
        if kwargs.pop("split_special_tokens", self.split_special_tokens):
            return self._tokens(text, allow_tags=False)
        return super().tokenize(text, split_special_tokens=False, **kwargs)

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return self._tokens(text, allow_tags=True)

    def _tokens(self, text: str, *, allow_tags: bool) -> list[str]:
        encoding = self.codec.encode_with_offsets(text, allow_tags=allow_tags)
        ids = self.codec.vocabulary.ids
        tokens = []
        for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            form = text[start:end]  # 慶應 stays 慶應 where it was written so
            tokens.append(form if ids.get(form) == token_id else self._token_of[token_id])
        return tokens

    def _convert_token_to_id(self, token: str) -> int:
        token_id = self._id_of.get(token, self.codec.vocabulary.ids.get(token))
        return self.codec.vocabulary.ids[str(self.unk_token)] if token_id is None else token_id

    def _convert_id_to_token(self, index: int) -> str:
        if not 0 <= index < len(self._token_of):
            raise TokenizationError(
                f"id {index} is outside the vocabulary; ids are 0 to {len(self) - 1}"
            )
        return self._token_of[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text that tokens stand for; whitespace kept, bytes joined into characters."""
        stream = self.codec.stream_decoder()
        text = []
        for token in tokens:
            token_id = self._id_of.get(token, self.codec.vocabulary.ids.get(token))
            text.append(stream.finish() + token if token_id is None else stream.feed(token_id))
        return "".join(text) + stream.finish()

    def save_vocabulary(
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


def _names(vocabulary: Vocabulary) -> list[str]:
    """One distinct name for every id: a form that leads back to it, canonical first.

    Ids whose forms all belong to later lines can never be produced; they are named by number.
    """
    return [
        next((form for form in forms if vocabulary.ids[form] == i), f"<|id{i}|>")
        for i, forms in enumerate(vocabulary.surfaces)
    ]


# Published directories name this class, or only their model type; both lead to ours from now on.
AutoTokenizer.register(  # type: ignore[no-untyped-call]
    InTreeConfig, tokenizer_class=GPTNeoXJapaneseTokenizer, exist_ok=True
)
