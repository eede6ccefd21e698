"""Conversations on disk: ids, which of them are answers, and where each conversation ends.

train-ids.bin        uint16 or uint32 [tokens], the ids of all conversations one after the other
train-answers.bin    uint8 [tokens], 1 where an answer holds the token: what a model learns
train-ends.bin       int64 [conversations], where each one ends
held-out-….bin       the same of those that are kept out of training
held-out.jsonl       their messages
conversations.json   counts, and which vocabulary made the ids; written last
vocab.txt, emoji.json, tokenizer_config.json, chat_template.jinja
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.assets import default_chat_template
from gpt_neox_japanese.checks import check_number, is_count, short_repr
from gpt_neox_japanese.corpus import Document, HeldOut, Layout, choose_held_out
from gpt_neox_japanese.errors import ArgumentError, CorpusError, DataError
from gpt_neox_japanese.files.json_files import read_object
from gpt_neox_japanese.files.model_directory import TOKENIZER_FILES, find_tokenizer
from gpt_neox_japanese.files.regular_files import check_regular
from gpt_neox_japanese.files.remote import AnyPath, as_path
from gpt_neox_japanese.tokenization.arrays import token_dtype
from gpt_neox_japanese.tokenization.encode_corpus import (
    CorpusSource,
    Packed,
    ReadingKwargs,
    corpus_fingerprint,
    encode_corpus,
)
from gpt_neox_japanese.tokenization.resumable_output import ResumableOutput
from gpt_neox_japanese.tokenizer.chat_template import ChatTemplate, find_chat_template
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.training.data.prepare import copy_tokenizer
from gpt_neox_japanese.training.data.shards import HELD_OUT_TEXT

__all__ = [
    "CONVERSATIONS",
    "ConversationCounts",
    "Conversations",
    "PreparedConversations",
    "prepare_conversations",
]

CONVERSATIONS = "conversations.json"
CHAT_TEMPLATE = "chat_template.jinja"

_HELD_OUT = 0.01
_SPLITS = ("train", "held-out")
_IDS, _ANSWERS, _ENDS = "{}-ids.bin", "{}-answers.bin", "{}-ends.bin"
_END = np.dtype("<i8")
_NAMES = re.compile(
    "|".join(
        re.escape(name)
        for name in (
            *(kind.format(split) for split in _SPLITS for kind in (_IDS, _ANSWERS, _ENDS)),
            *(HELD_OUT_TEXT, CONVERSATIONS, *TOKENIZER_FILES),
        )
    ),
    re.ASCII,
)
_REMEDY = "prepare the conversations again"


@dataclass(frozen=True)
class ConversationCounts:
    """How much of one split there is.

    Attributes:
        conversations: How many.
        tokens: Of all that was said, with what the template puts between.
        answer_tokens: Those that are learned.
        answer_characters: Of the assistant's messages.
    """

    conversations: int
    tokens: int
    answer_tokens: int
    answer_characters: int


@dataclass(frozen=True)
class PreparedConversations:
    """What `prepare_conversations` wrote.

    Attributes:
        train: What is learned from.
        held_out: What is kept out of training.
        skipped: How many conversations were broken.
    """

    train: ConversationCounts
    held_out: ConversationCounts
    skipped: int


def prepare_conversations(
    corpus: Iterable[str | AnyPath],
    tokenizer: str | Path,
    output: str | AnyPath,
    *,
    chat_template: Path | None = None,
    held_out: float | None = None,
    resume: bool = False,
    **reading: Unpack[ReadingKwargs],
) -> PreparedConversations:
    """Tokenize conversations into `output`, which appears only when it is complete.

    Args:
        corpus: Files of JSON lines, directories and URLs of them; see `corpus.conversations`.
        tokenizer: A directory with `vocab.txt` and `emoji.json`, a Hub id, or "default".
        output: The directory to make; it must not exist, or be empty.
        chat_template: A Jinja template, as transformers has them; the tokenizer's own if None, and
            where it has none, the one in this package.
        held_out: About the fraction of what is said that is kept out of training, in whole
            conversations; see `choose_held_out`. 0.01 if None.
        resume: Continue a run that was interrupted, if there is one; see `resumable_output`.
        **reading: `on_error` and `workers`, and of `layout` the field of the id; see
            `ReadingKwargs`.

    Returns:
        How much was prepared.

    Raises:
        OutputError: `output` is not empty or cannot be written.
        DataError: Nothing is left to train on, or there is an interrupted run that this one cannot
            continue.
        CorpusError: The corpus cannot be read, or a conversation is half-formed.
        CheckpointError: There is no such tokenizer.
        ArgumentError: The template cannot be used, or an option is out of range.
    """
    fraction = "a number from 0 to below 1"
    held_out = _HELD_OUT if held_out is None else held_out
    held_out = check_number("held_out", held_out, ArgumentError, lambda x: 0 <= x < 1, fraction)
    layout = reading.get("layout") or Layout()
    reading["layout"] = replace(layout, conversations=True)
    source = CorpusSource.find(corpus, **reading)
    directory = find_tokenizer(tokenizer)
    codec = Codec.load(directory)
    template = find_chat_template(directory, chat_template) or default_chat_template()
    choice = choose_held_out(source.files, source.layout, held_out)
    pack = _Pack(codec, template, choice, token_dtype(len(codec)))
    settings = {
        **corpus_fingerprint(source, codec),
        "held_out": {"fraction": held_out, **asdict(choice)},
        "chat_template": template,
        "token_names": dict(codec.added_tokens.names),
    }
    with ResumableOutput(
        as_path(output), settings, resume=resume, names=_NAMES, last=CONVERSATIONS
    ) as files:
        encode_corpus(source, pack, partial(_put, files), files)
        counts = {split: _counts(files, split) for split in _SPLITS}
        made = PreparedConversations(counts["train"], counts["held-out"], files.counts["skipped"])
        if not made.train.conversations:
            files.discard()
            raise DataError("no conversation is left to train on; give more, or --held-out 0")
        copy_tokenizer(codec, directory, files.directory)
        _drop_chat_template(files.directory / "tokenizer_config.json")
        (files.directory / CHAT_TEMPLATE).write_text(template, encoding="utf-8", newline="\n")
        description = {
            "version": 1,
            "vocabulary_fingerprint": codec.fingerprint,
            **{split: asdict(each) for split, each in counts.items()},
            "skipped": made.skipped,
        }
        text = json.dumps(description, ensure_ascii=False, indent=2)
        (files.directory / CONVERSATIONS).write_text(text + "\n", encoding="utf-8", newline="\n")
        files.publish()
    return made


def _drop_chat_template(config: Path) -> None:
    """Take the template of the tokenizer out, which another may have replaced."""
    fields = read_object(config)
    if fields.pop("chat_template", None) is not None:
        text = json.dumps(fields, ensure_ascii=False, indent=2)
        config.write_text(text + "\n", encoding="utf-8", newline="\n")


@dataclass(frozen=True)
class _Pack:
    """Encodes and packs a block's conversations."""

    codec: Codec
    template: str
    choice: HeldOut
    dtype: np.dtype[Any]

    def __post_init__(self) -> None:
        # A template that is none is told before anything.
        ChatTemplate(self.template, self.codec).close()

    def __call__(self, documents: Sequence[Document]) -> tuple[Packed, list[CorpusError]]:
        with closing(ChatTemplate(self.template, self.codec)) as template:
            return self._packed(documents, template)

    def _packed(
        self, documents: Sequence[Document], template: ChatTemplate
    ) -> tuple[Packed, list[CorpusError]]:
        parts: dict[str, list[bytes]] = {}
        counts: Counter[str] = Counter()
        problems: list[CorpusError] = []
        for document in documents:
            messages = json.loads(document.text)
            try:
                turns = template.encode_turns(messages)
            except ArgumentError as error:
                problems.append(CorpusError(f"{document.file}, line {document.line}: {error}"))
                continue
            split = "held-out" if self._is_held_out(document) else "train"
            if split == "held-out":
                line = {"id": document.id, "messages": messages}
                text = json.dumps(line, ensure_ascii=False).encode() + b"\n"
                parts.setdefault(HELD_OUT_TEXT, []).append(text)
            answers = np.array(turns.is_answer, np.uint8)
            for name, data in (
                (_IDS, np.array(turns.ids, self.dtype).tobytes()),
                (_ANSWERS, answers.tobytes()),
                (_ENDS, _END.type(len(turns.ids)).tobytes()),  # lengths yet; see `_put`
            ):
                parts.setdefault(name.format(split), []).append(data)
            said = (m["content"] for m in messages if m["role"] == "assistant")
            counts[f"{split}.conversations"] += 1
            counts[f"{split}.tokens"] += len(turns.ids)
            counts[f"{split}.answer_tokens"] += int(answers.sum())
            counts[f"{split}.answer_characters"] += sum(map(len, said))
        return Packed({name: b"".join(pieces) for name, pieces in parts.items()}, counts), problems

    def _is_held_out(self, document: Document) -> bool:
        # Of a text a part may be held out; a conversation is held out as a whole.
        return bool(self.choice.split(document)[1])


def _put(files: ResumableOutput, packed: Packed) -> None:
    for split in _SPLITS:
        # Where a conversation ends depends on all blocks before, which no worker knows.
        lengths = np.frombuffer(packed.parts.get(_ENDS.format(split), b""), _END)
        ends = files.counts[f"{split}.tokens"] + np.cumsum(lengths, dtype=_END)
        for name, data in (
            (_IDS.format(split), packed.parts.get(_IDS.format(split), b"")),
            (_ANSWERS.format(split), packed.parts.get(_ANSWERS.format(split), b"")),
            (_ENDS.format(split), ends.tobytes()),
        ):
            files.append(name, data)
    files.append(HELD_OUT_TEXT, packed.parts.get(HELD_OUT_TEXT, b""))


def _counts(files: ResumableOutput, split: str) -> ConversationCounts:
    names = ConversationCounts.__dataclass_fields__
    return ConversationCounts(**{name: files.counts[f"{split}.{name}"] for name in names})


class Conversations:
    """The conversations of a split, memory-mapped.

    Args:
        ids: Integers [tokens], of all conversations.
        answers: uint8 [tokens], 1 for those that are learned.
        ends: int64 [conversations], where each one ends.
        vocabulary_size: What every id must be below.

    Raises:
        DataError: The ends do not rise, or the arrays differ in length.
    """

    def __init__(
        self,
        ids: NDArray[np.integer[Any]],
        answers: NDArray[np.uint8],
        ends: NDArray[np.int64],
        vocabulary_size: int,
    ) -> None:
        self._ids, self._answers, self._vocabulary_size = ids, answers, vocabulary_size
        self._starts = np.concatenate([np.zeros(1, np.int64), ends])
        # Compared and not subtracted: the difference of two lies may come round to a length.
        rises = bool(np.all(self._starts[1:] > self._starts[:-1]))
        self.lengths = np.diff(self._starts)
        if not rises or self._starts[-1] != len(ids) or len(answers) != len(ids):
            raise DataError(f"the ends of conversations do not fit their tokens; {_REMEDY}")

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def num_tokens(self) -> int:
        """Tokens of all conversations."""
        return len(self._ids)

    @property
    def num_answer_tokens(self) -> int:
        """Those of them that are learned."""
        return int(np.count_nonzero(self._answers))

    def have_answers(self, max_tokens: int) -> NDArray[np.bool_]:
        """Whether something is learned of each conversation.

        Args:
            max_tokens: What is longer ends there.

        Returns:
            Booleans [conversations].
        """
        starts = self._starts[:-1]
        bounds = np.stack([starts, starts + np.minimum(self.lengths, max_tokens)], axis=1).ravel()
        # What is between two conversations' windows is reduced too, and left out.
        inside = bounds[bounds < len(self._answers)]
        return np.maximum.reduceat(self._answers, inside)[::2] > 0

    def read(self, index: int, max_tokens: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """One conversation.

        Args:
            index: Which one.
            max_tokens: What is longer ends there.

        Returns:
            Ids, int64 [tokens], and whether each is learned, bool [tokens].

        Raises:
            DataError: A token is no id of the vocabulary.
        """
        start = int(self._starts[index])
        part = slice(start, min(start + max_tokens, int(self._starts[index + 1])))
        ids = self._ids[part].astype(np.int64)
        if ids.min() < 0 or ids.max() >= self._vocabulary_size:
            raise DataError(
                f"conversation {index} holds the token {ids.max()}, but the vocabulary has ids 0"
                f" to {self._vocabulary_size - 1}; {_REMEDY}"
            )
        return ids, self._answers[part] != 0

    @classmethod
    def open(cls, directory: Path, split: str, codec: Codec) -> Conversations:
        """Open a split of a prepared directory.

        Args:
            directory: What `prepare_conversations` made.
            split: "train" or "held-out".
            codec: The tokenizer beside it.

        Returns:
            Its conversations; there may be none.

        Raises:
            DataError: Something is missing, damaged, or of another vocabulary.
        """
        counts = read_counts(directory, codec)[split]
        byte = np.dtype(np.uint8)
        return cls(
            _map(directory / _IDS.format(split), token_dtype(len(codec)), counts.tokens),
            _map(directory / _ANSWERS.format(split), byte, counts.tokens),
            _map(directory / _ENDS.format(split), _END, counts.conversations),
            len(codec),
        )


def read_counts(directory: Path, codec: Codec) -> dict[str, ConversationCounts]:
    """What `conversations.json` says of both splits.

    Args:
        directory: What `prepare_conversations` made.
        codec: The tokenizer beside it.

    Returns:
        The counts of "train" and "held-out".

    Raises:
        DataError: It is missing, broken, or of another vocabulary or version.
    """
    path = directory / CONVERSATIONS
    values = read_object(path, DataError, _REMEDY)
    if values.get("version") != 1 or values.get("version") is True:
        version = short_repr(values.get("version"))
        raise DataError(f"{path} has version {version}, this program reads 1; {_REMEDY}")
    if values.get("vocabulary_fingerprint") != codec.fingerprint:
        raise DataError(f"{path} is of another vocabulary than the vocab.txt beside it; {_REMEDY}")
    found = {}
    for split in _SPLITS:
        counts = values.get(split)
        names = ConversationCounts.__dataclass_fields__.keys()
        if not isinstance(counts, dict) or counts.keys() != names:
            raise DataError(f"{path}: {split!r} is {short_repr(counts)}; {_REMEDY}")
        if not all(map(is_count, counts.values())):
            raise DataError(f"{path}: {split!r} is {short_repr(counts)}; {_REMEDY}")
        found[split] = ConversationCounts(**counts)
    return found


def _map(path: Path, dtype: np.dtype[Any], length: int) -> NDArray[Any]:
    check_regular(path, DataError)
    size = path.stat().st_size if path.exists() else 0
    if size != length * dtype.itemsize:
        raise DataError(f"{path} has {size} bytes, {length * dtype.itemsize} expected; {_REMEDY}")
    return np.memmap(path, dtype, mode="r") if length else np.empty(0, dtype)
