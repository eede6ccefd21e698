"""`Codec`: text to ids and back, with no heavy library behind it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import VocabularyError
from gpt_neox_japanese.tokenizer.decoding import Decoder, StreamDecoder
from gpt_neox_japanese.tokenizer.reference import Encoding, ReferenceEncoder
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

__all__ = ["Codec"]

CONFIG_FILE = "tokenizer_config.json"


class Codec:
    """Encodes and decodes with one vocabulary.

    Args:
        vocabulary: Surface forms and emoji.
        legacy: Give exactly the ids that transformers gives for the same files; the choice for
            published weights. Without it the comma has its own id, and an emoji with skin tone or
            joiners is one token; the choice for vocabularies built by `neox-ja vocab build`.
        clean: Replace URLs, addresses, telephone numbers, dates, prices and box drawing by tags.
        unknown: The entry for characters whose byte tokens the vocabulary lacks.

    Raises:
        VocabularyError: `unknown` is not in the vocabulary.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        legacy: bool = True,
        clean: bool = False,
        unknown: str = "<|endoftext|>",
    ) -> None:
        self.vocabulary = vocabulary
        self.legacy = legacy
        self.clean = clean
        self._encoder = ReferenceEncoder(vocabulary, legacy=legacy, clean=clean, unknown=unknown)
        self._decoder = Decoder(vocabulary)

    @classmethod
    def load(cls, directory: str | Path) -> Codec:
        """Read a vocabulary and its options from a directory.

        `vocab.txt` and `emoji.json` must be there. `tokenizer_config.json` may be: its `legacy`
        (default true) and `do_clean_text` (default false) are heeded.

        Raises:
            VocabularyError: A file is missing or broken.
        """
        vocabulary = Vocabulary.load(directory)
        config = _read_config(Path(directory) / CONFIG_FILE)
        return cls(
            vocabulary,
            legacy=config.get("legacy", True),
            clean=config.get("do_clean_text", False),
        )

    def save(self, directory: str | Path) -> None:
        """Write `vocab.txt`, `emoji.json` and `tokenizer_config.json` into `directory`."""
        self.vocabulary.save(directory)
        config = {
            "do_clean_text": self.clean,
            "legacy": self.legacy,
            "tokenizer_class": "GPTNeoXJapaneseTokenizer",
        }
        path = Path(directory) / CONFIG_FILE
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def encode(self, text: str, *, allow_tags: bool = False) -> NDArray[np.int32]:
        """The ids of a text, int32 of shape `(tokens,)`.

        Args:
            text: Any string of Unicode scalar values.
            allow_tags: Let tags spelled out in the text (`<|endoftext|>`, `<BR>`) become control
                ids, as transformers does. Leave it off for text from strangers.

        Raises:
            TokenizationError: The text holds a lone surrogate.
        """
        return np.asarray(self._encoder.encode(text, allow_tags=allow_tags).ids, dtype=np.int32)

    def encode_with_offsets(self, text: str, *, allow_tags: bool = False) -> Encoding:
        """The ids of a text and, for each, the characters `(start, end)` that it stands for."""
        return self._encoder.encode(text, allow_tags=allow_tags)

    def decode(self, ids: Iterable[int] | NDArray[np.integer]) -> str:
        """The text of a sequence of ids.

        Raises:
            TokenizationError: An id is outside the vocabulary.
        """
        return self._decoder.decode(ids.tolist() if isinstance(ids, np.ndarray) else ids)

    def decode_batch(self, sequences: Sequence[Iterable[int]]) -> list[str]:
        """The texts of several sequences of ids."""
        return [self.decode(ids) for ids in sequences]

    def stream_decoder(self, *, errors: Literal["replace", "ignore"] = "replace") -> StreamDecoder:
        """A decoder that is fed one id at a time and gives text as soon as it is complete.

        Args:
            errors: Whether bytes that form no character become U+FFFD or nothing.
        """
        return self._decoder.stream(errors=errors)


def _read_config(path: Path) -> dict[str, bool]:
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise VocabularyError(f"cannot read {str(path)!r}: {error}; it must be JSON") from error
    if not isinstance(config, dict):
        raise VocabularyError(f"{str(path)!r} must hold a JSON object, not {config!r:.40}")
    flags = {name: config[name] for name in ("legacy", "do_clean_text") if name in config}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise VocabularyError(f"{str(path)!r}: {name!r} must be true or false, not {value!r}")
    return flags
