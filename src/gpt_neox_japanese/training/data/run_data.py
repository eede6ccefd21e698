"""What a run trains on: a prepared corpus or another's dataset, opened and checked."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from gpt_neox_japanese.errors import ArgumentError, DataError
from gpt_neox_japanese.files.atomic import write_file
from gpt_neox_japanese.files.model_directory import find_tokenizer
from gpt_neox_japanese.files.remote import is_url
from gpt_neox_japanese.files.remote_copies import fetched
from gpt_neox_japanese.files.run_records import DATA_RECORD
from gpt_neox_japanese.tokenization.arrays import MANIFEST
from gpt_neox_japanese.tokenizer.chat_template import ChatTemplate, find_chat_template
from gpt_neox_japanese.tokenizer.codec import END_OF_TEXT, Codec
from gpt_neox_japanese.training.data.conversation_windows import (
    ConversationWindows,
    HeldOutConversations,
)
from gpt_neox_japanese.training.data.conversations import (
    CONVERSATIONS,
    Conversations,
    read_counts,
)
from gpt_neox_japanese.training.data.dataset import HeldOutWindows, TrainingWindows
from gpt_neox_japanese.training.data.datatrove_files import (
    datatrove_files,
    index_of,
    open_datatrove,
)
from gpt_neox_japanese.training.data.megatron import indexed_datasets, open_indexed
from gpt_neox_japanese.training.data.shards import PreparedData, ShardedTokens, Split
from gpt_neox_japanese.training.data.subword_regularization import SubwordDropoutEpochs
from gpt_neox_japanese.training.settings import RunSettings, Settings

__all__ = [
    "ConversationData",
    "HeldOut",
    "RunData",
    "TextData",
    "Windows",
    "open_data",
    "record_data",
]

Windows: TypeAlias = TrainingWindows | ConversationWindows
HeldOut: TypeAlias = HeldOutWindows | HeldOutConversations


@dataclass(frozen=True)
class RunData(ABC):
    """What is learned, and the vocabulary that made its tokens.

    Attributes:
        tokens_per_character: Of what is measured: the held-out text, or its answers.
            Of the training part if nothing is held out.
        tokenizer: The directory of the tokenizer.
        codec: The tokenizer.
        eos_token_id: The id that ends every document and every answer.
        fingerprint: Tells documents of other lengths, or another vocabulary, from these.
        sizes: Of the training and of the held-out text, in words.
        held_out_fingerprint: The same of held-out text, if that is named for itself.
    """

    tokens_per_character: float
    tokenizer: Path
    codec: Codec
    eos_token_id: int
    fingerprint: str
    sizes: Mapping[str, str]
    held_out_fingerprint: str | None = field(default=None, kw_only=True)

    measures: ClassVar[str]
    """Of what the held-out figure is, in words."""

    @abstractmethod
    def tokens_per_epoch(self, window_size: int, settings: Settings | None = None) -> int:
        """Tokens that pass through the model while it sees every training text once.

        Args:
            window_size: Tokens of a window.
            settings: Whether the text is encoded anew; if None, it is not.

        Raises:
            DataError: Nothing can be learned in such windows.
        """

    @property
    @abstractmethod
    def num_held_out_tokens(self) -> int:
        """Tokens that may be measured; there may be none."""

    @abstractmethod
    def training_windows(self, settings: RunSettings, count: int) -> Windows:
        """The windows of a run, in their order.

        Args:
            settings: How long windows are, and in which order they come.
            count: How many the run needs.

        Returns:
            A dataset whose item i is the run's i-th window.

        Raises:
            DataError: There is too little for a window.
            ArgumentError: A setting is for other data.
        """

    @abstractmethod
    def held_out_windows(self, window_size: int, max_tokens: int) -> HeldOut:
        """What is measured on the way.

        Args:
            window_size: How many tokens the model reads.
            max_tokens: At most about so many tokens are predicted.

        Returns:
            A dataset of windows, and how many tokens they predict.
        """

    @abstractmethod
    def describe_measured(self, num_tokens: int) -> str:
        """Say which part of what is held out a measurement takes.

        Args:
            num_tokens: How many tokens it predicts.

        Returns:
            Words.
        """

    @abstractmethod
    def beginning(self, text: str) -> list[int]:
        """What the model continues for a sample.

        Args:
            text: A beginning, or what a user says.

        Returns:
            Ids.
        """

    def notices(self, window_size: int) -> list[str]:
        """What should be known before the first step.

        Args:
            window_size: Tokens of a window.

        Returns:
            Lines; there may be none.
        """
        return []

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


@dataclass(frozen=True)
class TextData(RunData):
    """Texts, of which every token is learned.

    Attributes:
        train: The training tokens.
        held_out: The held-out tokens; may be empty.
    """

    train: ShardedTokens
    held_out: ShardedTokens

    measures = "held-out text"

    @cached_property
    def _epochs(self) -> Callable[[float, int], SubwordDropoutEpochs]:
        """What encodes the text anew, the same for the same dropout and seed: it takes long."""
        return cache(partial(SubwordDropoutEpochs, self.train, self.codec, self.eos_token_id))

    def tokens_per_epoch(self, window_size: int, settings: Settings | None = None) -> int:
        """See `RunData.tokens_per_epoch`; of one that is encoded anew, those of the first."""
        if settings is not None and settings.subword_dropout:
            return len(self._epochs(settings.subword_dropout, settings.seed)(0))
        return len(self.train)

    @property
    def num_held_out_tokens(self) -> int:
        """Tokens that may be measured; there may be none."""
        return len(self.held_out)

    def training_windows(self, settings: RunSettings, count: int) -> Windows:
        """See `RunData.training_windows`."""
        stream: Any = self.train
        if settings.subword_dropout:
            stream = self._epochs(settings.subword_dropout, settings.seed)
        return TrainingWindows(
            stream,
            settings.sequence_length,
            count,
            settings.seed,
            self.eos_token_id if settings.document_masking else None,
        )

    def held_out_windows(self, window_size: int, max_tokens: int) -> HeldOut:
        """See `RunData.held_out_windows`."""
        return HeldOutWindows(self.held_out, self.eos_token_id, window_size, max_tokens)

    def describe_measured(self, num_tokens: int) -> str:
        """See `RunData.describe_measured`."""
        if num_tokens == self.num_held_out_tokens:
            return "all of it, as `neox-ja evaluate` reads it"
        return (
            f"{num_tokens:,} of its {self.num_held_out_tokens:,} tokens, spread evenly;"
            " `neox-ja evaluate` reads all of them"
        )

    def beginning(self, text: str) -> list[int]:
        """See `RunData.beginning`; the end of the text before it stands first."""
        return [self.eos_token_id, *self.codec.encode(text)]


@dataclass(frozen=True)
class ConversationData(RunData):
    """Conversations, of which answers are learned.

    Attributes:
        train: Those to train on.
        held_out: Those that are kept out; there may be none.
        template: Source of the one that writes the marks between what is said.
    """

    train: Conversations
    held_out: Conversations
    template: str

    measures = "the answers of held-out conversations"

    def tokens_per_epoch(self, window_size: int, settings: Settings | None = None) -> int:
        """See `RunData.tokens_per_epoch`; what fills up windows passes through as well."""
        windows = ConversationWindows(self.train, window_size, 1, 0, self.eos_token_id)
        return windows.windows_per_epoch * window_size

    @property
    def num_held_out_tokens(self) -> int:
        """Tokens of answers that may be measured; there may be none."""
        return self.held_out.num_answer_tokens

    def training_windows(self, settings: RunSettings, count: int) -> Windows:
        """See `RunData.training_windows`; each conversation is a document of its own anyway."""
        if settings.subword_dropout:
            raise ArgumentError(
                "--subword-dropout encodes texts anew, and conversations are encoded once; leave it"
                " out"
            )
        return ConversationWindows(
            self.train, settings.sequence_length, count, settings.seed, self.eos_token_id
        )

    def held_out_windows(self, window_size: int, max_tokens: int) -> HeldOut:
        """See `RunData.held_out_windows`."""
        return HeldOutConversations(self.held_out, window_size, max_tokens, self.eos_token_id)

    def describe_measured(self, num_tokens: int) -> str:
        """See `RunData.describe_measured`."""
        return f"{num_tokens:,} of its {self.num_held_out_tokens:,} answer tokens"

    def beginning(self, text: str) -> list[int]:
        """See `RunData.beginning`: a user said it, and the model is to answer."""
        with closing(ChatTemplate(self.template, self.codec)) as template:
            return template.encode([{"role": "user", "content": text}])

    def notices(self, window_size: int) -> list[str]:
        """See `RunData.notices`."""
        cut = int((self.train.lengths > window_size).sum())
        line = (
            f"{cut:,} of {len(self.train):,} conversations are longer than a window of"
            f" {window_size} tokens, and what is beyond it is not learned"
        )
        return [line] if cut else []


def open_data(
    name: str | Path,
    tokenizer: str | Path | None,
    held_out: str | Path | None = None,
    *,
    model: Path | None = None,
) -> RunData:
    """Open what `--data` names.

    Args:
        name: A directory that `prepare` made, of texts or of conversations; an indexed dataset
            (`.bin`, `.idx` or neither) or a directory of them; or what datatrove wrote: a `.ds`
            file, or a directory of them. Of a URL, a copy is kept.
        tokenizer: Directory or Hub id of the vocabulary that made an indexed dataset, which does
            not say so itself.
        held_out: Such a dataset that is kept out of training, if there is one.
        model: Whose vocabulary made an indexed dataset if no tokenizer is named.

    Returns:
        The tokens and the vocabulary that made them.

    Raises:
        DataError: Something is missing, damaged, or does not fit together.
        CheckpointError: There is no such tokenizer.
        RemoteError: A URL cannot be read.
    """
    path = fetched(name) if is_url(name) else Path(name)
    talks = (path / CONVERSATIONS).exists()
    if talks or not _is_foreign(path):
        if held_out is not None:
            raise DataError(f"{path} has its held-out part inside; leave out --held-out-data")
        data = _open_conversations(path) if talks else _open_prepared(path)
        if tokenizer is not None:
            raise DataError(f"{path} has its vocabulary inside; leave out --tokenizer")
        return data
    tokenizer = tokenizer or model
    if tokenizer is None:
        raise DataError(f"{path} does not say which vocabulary made it; name one with --tokenizer")
    directory = find_tokenizer(tokenizer)
    codec = Codec.load(directory)
    eos = codec.token_to_id(END_OF_TEXT)
    if eos is None:
        raise DataError(f"the vocabulary of {tokenizer} has no {END_OF_TEXT}")
    train, indices = _open_foreign(path, len(codec), eos)
    digest = _digest_of_lengths(indices, codec)
    kept, kept_digest = ShardedTokens([]), None
    if held_out is not None:
        kept_path = fetched(held_out) if is_url(held_out) else Path(held_out)
        if not _is_foreign(kept_path):
            raise DataError(f"{kept_path} is no indexed dataset; name its .bin, .idx or .ds")
        kept, kept_indices = _open_foreign(kept_path, len(codec), eos)
        kept_digest = _digest_of_lengths(kept_indices, codec)
    sizes = {"Training text": _tokens(len(train)), "Held-out part": _tokens(len(kept))}
    density = _density(kept if len(kept) else train, codec, eos)
    return TextData(
        *(density, directory, codec, eos, digest, sizes),
        held_out_fingerprint=kept_digest,
        train=train,
        held_out=kept,
    )


def record_data(output: Path, data: RunData) -> None:
    """Write `data.json`, what a run was trained on, for the page of its model.

    Args:
        output: The run's directory.
        data: What it is trained on.
    """
    record = {"sizes": dict(data.sizes), "measures": data.measures}
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    write_file(output / DATA_RECORD, text.encode())


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


def _digest_of_lengths(indices: list[Path], codec: Codec) -> str:
    lengths = b"".join(index.read_bytes() for index in indices)
    return hashlib.sha256(lengths + codec.fingerprint.encode()).hexdigest()


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
    train, held_out = data.manifest.train, data.manifest.held_out
    told = held_out if held_out.tokens else train
    return TextData(
        train=data.train,
        held_out=data.held_out,
        tokens_per_character=told.tokens / max(told.characters, 1),
        tokenizer=directory,
        codec=codec,
        eos_token_id=data.manifest.eos_token_id,
        fingerprint=hashlib.sha256((directory / MANIFEST).read_bytes()).hexdigest(),
        sizes={"Training text": _size(train), "Held-out part": _size(held_out)},
    )


def _open_conversations(directory: Path) -> RunData:
    codec = Codec.load(directory)
    eos = codec.token_to_id(END_OF_TEXT)
    if eos is None:
        raise DataError(f"the vocabulary of {directory} has no {END_OF_TEXT}")
    counts = read_counts(directory, codec)
    train, held_out = counts["train"], counts["held-out"]
    told = held_out if held_out.conversations else train
    template = find_chat_template(directory, None)
    if template is None:
        raise DataError(f"{directory} has no chat_template.jinja; prepare the conversations again")
    ChatTemplate(template, codec).close()  # one that is none is told before anything is trained
    return ConversationData(
        train=Conversations.open(directory, "train", codec),
        held_out=Conversations.open(directory, "held-out", codec),
        template=template,
        tokens_per_character=told.answer_tokens / max(told.answer_characters, 1),
        tokenizer=directory,
        codec=codec,
        eos_token_id=eos,
        fingerprint=hashlib.sha256((directory / CONVERSATIONS).read_bytes()).hexdigest(),
        sizes={
            name: f"{each.conversations:,} conversations, {each.answer_tokens:,} of"
            f" {_tokens(each.tokens)} are answers"
            for name, each in (("Training text", train), ("Held-out part", held_out))
        },
    )


def _size(split: Split) -> str:
    return (
        f"{split.documents:,} documents, {split.characters:,} characters, {_tokens(split.tokens)}"
    )


def _tokens(number: int) -> str:
    return f"{number:,} tokens"


def _density(stream: ShardedTokens, codec: Codec, eos: int) -> float:
    """Tokens per character, by the first million tokens; the ends of texts have no characters."""
    ids = stream.read(0, min(len(stream), 10**6))
    return len(ids) / max(len(codec.decode(ids[ids != eos])), 1)
