"""The exceptions a user of this package may meet.

    ValueError
    └── NeoXJapaneseError      something the caller gave us cannot be used
        ├── VocabularyError    vocab.txt or emoji.json is broken; the message names the line
        ├── TokenizationError  this text or these ids cannot be converted
        ├── CheckpointError    a model directory is missing, broken, or does not fit its vocabulary
        ├── CorpusError        a training text cannot be read; the message names file and line
        ├── OutputError        a result cannot be written where it is wanted
        ├── DataError          token shards are missing, broken, or made with another tokenizer
        ├── TrainingError      a run cannot go on; the message says from where it can be continued
        └── GenerationError    a prompt or a sampling option is out of range
            └── QueueFullError too many requests wait; the same one may be taken later

Every message says what is wrong, which value it was, and what to do about it. All of them are
`ValueError`s, so code that knows nothing of this package can still catch them.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "CorpusError",
    "DataError",
    "GenerationError",
    "NeoXJapaneseError",
    "OutputError",
    "QueueFullError",
    "TokenizationError",
    "TrainingError",
    "VocabularyError",
]


class NeoXJapaneseError(ValueError):
    """Something the caller gave us cannot be used; the message says what to do."""


class VocabularyError(NeoXJapaneseError):
    """`vocab.txt` or `emoji.json` is broken."""


class TokenizationError(NeoXJapaneseError):
    """A text cannot be encoded or a sequence of ids cannot be decoded."""


class CheckpointError(NeoXJapaneseError):
    """A model directory is missing, broken, or does not fit its vocabulary."""


class CorpusError(NeoXJapaneseError):
    """A corpus file cannot be read."""


class OutputError(NeoXJapaneseError):
    """A result cannot be written where it is wanted."""


class DataError(NeoXJapaneseError):
    """Token shards are missing, broken, or were made with another tokenizer."""


class TrainingError(NeoXJapaneseError):
    """A training run cannot go on."""


class GenerationError(NeoXJapaneseError):
    """A prompt or a sampling option cannot be used."""


class QueueFullError(GenerationError):
    """More requests are waiting than the engine takes; nothing is wrong with this one."""
