"""The exceptions that this package raises on purpose.

    Exception
    └── NeoXJapaneseError           everything below
        ├── (and ValueError)        what the caller gave cannot be used
        │   ├── ArgumentError       an argument, an option or a setting, or two that contradict
        │   ├── VocabularyError     vocab.txt or emoji.json is broken; the message names the line
        │   ├── TokenizationError   this text or these ids cannot be converted
        │   ├── CheckpointError     a model directory is missing, broken, or does not fit
        │   ├── CorpusError         a training text cannot be read; the message names file and line
        │   ├── OutputError         a result cannot be written where it is wanted
        │   ├── DataError           token shards are missing, broken, or of another tokenizer
        │   └── GenerationError     a prompt or a sampling parameter is out of range
        └── (no ValueError)         nothing is wrong with what the caller gave
            ├── QueueFullError      too many requests wait; the same one may be taken later
            ├── RemoteError         another machine does not answer, or refuses a file
            └── TrainingError       a run cannot go on, because the disk is full or fails, or
                                    because a loss is not finite; the message says what to do

Every message says what is wrong, which value it was, and what to do about it. Code that knows
nothing of this package catches the first group as `ValueError`.

Outside of a training run a full disk is an `OSError`, as everywhere in Python, and an interrupt is
always a `KeyboardInterrupt`.
"""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "CheckpointError",
    "CorpusError",
    "DataError",
    "GenerationError",
    "NeoXJapaneseError",
    "OutputError",
    "QueueFullError",
    "RemoteError",
    "TokenizationError",
    "TrainingError",
    "VocabularyError",
]


class NeoXJapaneseError(Exception):
    """Any error of this package; the message says what to do."""


class ArgumentError(NeoXJapaneseError, ValueError):
    """An argument, an option or a setting cannot be used, or contradicts another."""


class VocabularyError(NeoXJapaneseError, ValueError):
    """`vocab.txt` or `emoji.json` is broken."""


class TokenizationError(NeoXJapaneseError, ValueError):
    """A text cannot be encoded or a sequence of ids cannot be decoded."""


class CheckpointError(NeoXJapaneseError, ValueError):
    """A model directory is missing, broken, or does not fit its vocabulary."""


class CorpusError(NeoXJapaneseError, ValueError):
    """A corpus file cannot be read."""


class OutputError(NeoXJapaneseError, ValueError):
    """A result cannot be written where it is wanted."""


class DataError(NeoXJapaneseError, ValueError):
    """Token shards are missing, broken, or were made with another tokenizer."""


class GenerationError(NeoXJapaneseError, ValueError):
    """A prompt or a sampling parameter cannot be used."""


class QueueFullError(NeoXJapaneseError):
    """More requests are waiting than the engine takes; the same one may be taken later."""


class RemoteError(NeoXJapaneseError):
    """A file on another machine cannot be read or written; it may be, at another time."""


class TrainingError(NeoXJapaneseError):
    """A training run cannot go on; what it has saved is there."""
