"""A step for pipelines of datatrove, which run on one machine, Slurm or Ray, and read and write S3.

datatrove's own step wants a `tokenizers.Tokenizer`, which cannot do what ours does. This is the
same step with our ids; `neox-ja train --data` reads the files that it writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from typing import Any, NamedTuple

from datatrove.pipeline.tokens import DocumentTokenizer

from gpt_neox_japanese.errors import ArgumentError, DataError
from gpt_neox_japanese.files.model_directory import find_tokenizer
from gpt_neox_japanese.tokenizer.codec import END_OF_TEXT, Codec

__all__ = ["GPTNeoXJapaneseDocumentTokenizer"]


class GPTNeoXJapaneseDocumentTokenizer(DocumentTokenizer):  # type: ignore[misc]
    """Writes the ids of documents, each followed by the end-of-text id.

    Args:
        output_folder: Where to, a path or a URL of fsspec.
        tokenizer: A directory with vocab.txt and emoji.json, a Hub id, or "default".
        **options: As of datatrove's `DocumentTokenizer`, without `eos_token`.

    Raises:
        ArgumentError: `eos_token` or `save_loss_metadata` is among the options.
        CheckpointError: There is no such tokenizer.
    """

    def __init__(self, output_folder: Any, tokenizer: str | PathLike[str], **options: Any) -> None:
        for name in ("eos_token", "save_loss_metadata"):
            if options.get(name):
                raise ArgumentError(
                    f"{name} cannot be given; every document ends with {END_OF_TEXT}, and all of"
                    " its tokens are trained on"
                )
        find_tokenizer(tokenizer)  # here and now, and once more where the work is done
        super().__init__(output_folder, str(tokenizer), **options)

    @cached_property
    def tokenizer(self) -> _Backend:
        """What datatrove asks for ids; made in the process that uses it."""
        return _Backend(Codec.from_pretrained(self.tokenizer_name_or_path))


class _Encoding(NamedTuple):
    ids: list[int]


class _Backend:
    """The two calls that datatrove makes of a `tokenizers.Tokenizer`."""

    def __init__(self, codec: Codec) -> None:
        end = codec.token_to_id(END_OF_TEXT)
        if end is None:
            raise DataError(f"the vocabulary has no {END_OF_TEXT} to end documents with")
        self._codec, self._end = codec, end

    def get_vocab_size(self) -> int:
        """How many ids there are, which decides whether one takes two bytes or four."""
        return len(self._codec)

    def encode_batch(self, texts: Sequence[str]) -> list[_Encoding]:
        """The ids of documents. On one thread: datatrove has a process for each core."""
        rows = self._codec.encode_batch(texts, num_threads=1)
        return [_Encoding([*row, self._end]) for row in rows]
