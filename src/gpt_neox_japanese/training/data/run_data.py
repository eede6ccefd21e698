"""What a run trains on: a prepared corpus or another's dataset, opened and checked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.files.model_directory import find_tokenizer
from gpt_neox_japanese.files.remote import is_url
from gpt_neox_japanese.files.remote_copies import fetched
from gpt_neox_japanese.tokenization.arrays import MANIFEST
from gpt_neox_japanese.tokenizer.codec import END_OF_TEXT, Codec
from gpt_neox_japanese.training.data.datatrove_files import (
    datatrove_files,
    index_of,
    open_datatrove,
)
from gpt_neox_japanese.training.data.megatron import indexed_datasets, open_indexed
from gpt_neox_japanese.training.data.shards import PreparedData, ShardedTokens

__all__ = ["RunData", "open_data"]


@dataclass(frozen=True)
class RunData:
    """Tokens, and the vocabulary that made them.

    Attributes:
        train: The training tokens.
        held_out: The held-out tokens; may be empty.
        tokens_per_character: Of the held-out text.
        tokenizer: The directory of the tokenizer.
        codec: The tokenizer.
        eos_token_id: The id that ends every document.
        fingerprint: Tells documents of other lengths, or another vocabulary, from these.
    """

    train: ShardedTokens
    held_out: ShardedTokens
    tokens_per_character: float
    tokenizer: Path
    codec: Codec
    eos_token_id: int
    fingerprint: str

    def check_vocabulary(self, model: Path) -> None:
        """Make sure a model has the vocabulary that made the tokens.

        Args:
            model: The model's directory.

        Raises:
            DataError: It has another.
        """
        fingerprint = Codec.load(model).fingerprint
        mine = self.codec.fingerprint
        if fingerprint != mine:
            raise DataError(
                f"the data was prepared with vocabulary {mine[:12]}…, {model} has "
                f"{fingerprint[:12]}…; prepare the corpus again with --tokenizer {model}"
            )


def open_data(
    name: str | Path, tokenizer: str | Path | None, held_out: str | Path | None = None
) -> RunData:
    """Open what `--data` names.

    Args:
        name: A directory that `prepare` made, an indexed dataset (`.bin`, `.idx` or neither) or a
            directory of them, or what datatrove wrote: a `.ds` file, or a directory of them. Of a
            URL, a copy is kept.
        tokenizer: Directory or Hub id of the vocabulary that made an indexed dataset, which does
            not say so itself.
        held_out: Such a dataset that is kept out of training, if there is one.

    Returns:
        The tokens and the vocabulary that made them.

    Raises:
        DataError: Something is missing, damaged, or does not fit together.
        CheckpointError: There is no such tokenizer.
        RemoteError: A URL cannot be read.
    """
    path = fetched(name) if is_url(name) else Path(name)
    if not _is_foreign(path):
        if held_out is not None:
            raise DataError(f"{path} has its held-out part inside; leave out --held-out-data")
        return _open_prepared(path)
    if tokenizer is None:
        raise DataError(f"{path} does not say which vocabulary made it; name one with --tokenizer")
    directory = find_tokenizer(tokenizer)
    codec = Codec.load(directory)
    eos = codec.token_to_id(END_OF_TEXT)
    if eos is None:
        raise DataError(f"the vocabulary of {tokenizer} has no {END_OF_TEXT}")
    train, indices = _open_foreign(path, len(codec), eos)
    kept = ShardedTokens([])
    if held_out is not None:
        kept_path = fetched(held_out) if is_url(held_out) else Path(held_out)
        if not _is_foreign(kept_path):
            raise DataError(f"{kept_path} is no indexed dataset; name its .bin, .idx or .ds")
        kept, _ = _open_foreign(kept_path, len(codec), eos)
    parts = [index.read_bytes() for index in indices]
    digest = hashlib.sha256(b"".join(parts) + codec.fingerprint.encode()).hexdigest()
    return RunData(train, kept, _density(kept, codec), directory, codec, eos, digest)


def _is_foreign(path: Path) -> bool:
    """Whether it is data of gpt-neox, NeMo Curator or datatrove."""
    if (path / MANIFEST).exists():
        return False
    return bool(indexed_datasets(path) or datatrove_files(path))


def _open_foreign(path: Path, size: int, eos: int) -> tuple[ShardedTokens, list[Path]]:
    """The tokens, and the files that tell where documents end."""
    if prefixes := indexed_datasets(path):
        indices = [prefix.with_name(prefix.name + ".idx") for prefix in prefixes]
        return open_indexed(prefixes, size, eos), indices
    files = datatrove_files(path)
    return open_datatrove(files, size, eos), [index_of(file) for file in files]


def _open_prepared(directory: Path) -> RunData:
    data = PreparedData(directory)
    codec = Codec.load(directory)
    data.check_vocabulary(codec.fingerprint, directory)
    found = data.manifest.eos_token_id, data.manifest.vocabulary_size
    if found != (codec.token_to_id(END_OF_TEXT), len(codec)):
        raise DataError(
            f"{directory / MANIFEST} says {found[1]} ids and {END_OF_TEXT} {found[0]}, vocab.txt "
            "beside it does not; prepare the corpus again"
        )
    held_out = data.manifest.held_out
    return RunData(
        train=data.train,
        held_out=data.held_out,
        tokens_per_character=held_out.tokens / max(held_out.characters, 1),
        tokenizer=directory,
        codec=codec,
        eos_token_id=data.manifest.eos_token_id,
        fingerprint=hashlib.sha256((directory / MANIFEST).read_bytes()).hexdigest(),
    )


def _density(stream: ShardedTokens, codec: Codec) -> float:
    """Tokens per character, by the first million tokens."""
    ids = stream.read(0, min(len(stream), 10**6))
    return len(ids) / max(len(codec.decode(ids)), 1)
