"""The two files of a vocabulary: `vocab.txt` and `emoji.json`.

`vocab.txt` is UTF-8 with one id a line, counted from 0. A line holds the surface forms of its id
separated by commas, the canonical form first: `慶応,慶應`. A line that is only a comma is the
comma.
`emoji.json` holds two objects: `emoji` maps a written emoji to its class tag, `emoji_inv` maps each
class tag to the emoji that it is decoded to.

Both may come from strangers. Forms and emoji have a greatest length, because the time for a text
grows with the longest of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from gpt_neox_japanese.checks import short_repr
from gpt_neox_japanese.errors import VocabularyError
from gpt_neox_japanese.files.json_files import parse_json
from gpt_neox_japanese.files.regular_files import check_regular

__all__ = ["EMOJI_FILE", "VOCAB_FILE", "Vocabulary"]

VOCAB_FILE = "vocab.txt"
EMOJI_FILE = "emoji.json"

# Longer ones are refused. In the published vocabulary they have 15 and 10 characters at most.
MAX_FORM_LENGTH = 256
MAX_EMOJI_LENGTH = 64

# What normalization writes into a text whatever its content; without them some texts have no ids.
_REQUIRED_TAGS = ("<SP>", "<BR>", "<TAB>", "<KIGOU>", "<U2000U2BFF>")


@dataclass(frozen=True)
class Vocabulary:
    """The surface forms of every id, and the emoji table.

    Attributes:
        surfaces: `surfaces[i]` are the forms of id `i`, the canonical one first.
        emoji: written emoji → class tag (`"🐯"` → `"<|emoji4|>"`), in order of replacement.
        emoji_inv: class tag → the emoji it is decoded to.

    Raises:
        VocabularyError: A tag that normalization needs has no id, or a table is malformed.
    """

    surfaces: tuple[tuple[str, ...], ...]
    emoji: Mapping[str, str]
    emoji_inv: Mapping[str, str]

    def __post_init__(self) -> None:
        needed = (*_REQUIRED_TAGS, *dict.fromkeys(self.emoji.values()))
        for tag in needed:
            if tag not in self.ids:
                raise VocabularyError(
                    f"the vocabulary has no entry {tag!r}, which texts need; add a line {tag!r}"
                )
        for tag in needed[len(_REQUIRED_TAGS) :]:
            if tag not in self.emoji_inv:
                raise VocabularyError(
                    f"'emoji_inv' has no emoji for {tag!r}; name the emoji it is decoded to"
                )

    def __len__(self) -> int:
        return len(self.surfaces)

    def __reduce__(self) -> tuple[object, ...]:
        # Neither what was looked up before changes a pickle, nor are two vocabularies with emoji in
        # another order alike to `datasets`, which sorts the keys of dicts.
        tables = (tuple(table.items()) for table in (self.emoji, self.emoji_inv))
        return _restored, (self.surfaces, *tables)

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """Every surface form → its id. A form that stands on two lines has the last one's."""
        return {form: i for i, forms in enumerate(self.surfaces) for form in forms}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """One distinct name for every id: a form that leads back to it, canonical first.

        Ids whose forms all belong to later lines can never be produced; they are named by number.
        """
        ids = self.ids
        return tuple(
            forms[0] if ids[forms[0]] == i else self.name(i)
            for i, forms in enumerate(self.surfaces)
        )

    def name(self, token_id: int) -> str:
        """One of `names`.

        Args:
            token_id: An id.

        Returns:
            The name.
        """
        forms = self.surfaces[token_id]
        leading_back = (form for form in forms if self.ids[form] == token_id)
        return next(leading_back, f"<|id{token_id}|>")

    def id_of_name(self, name: str) -> int | None:
        """The id that has a name, if there is one.

        Args:
            name: Any string.

        Returns:
            The id; None if there is none.
        """
        token_id = self.ids.get(name)
        if token_id is None and (by_number := re.fullmatch(r"<\|id([0-9]{1,9})\|>", name)):
            token_id = min(int(by_number[1]), len(self.surfaces) - 1)
        return token_id if token_id is not None and self.name(token_id) == name else None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the two files as `save` writes them."""
        digest = hashlib.sha256(self._vocab_text().encode())
        digest.update(self._emoji_text().encode())
        return digest.hexdigest()

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Vocabulary:
        """Read `vocab.txt` and `emoji.json` from a directory.

        Args:
            directory: Where both files are.

        Returns:
            The vocabulary.

        Raises:
            VocabularyError: A file is missing or broken; the message names the line.
        """
        directory = Path(directory)
        return cls.from_files(directory / VOCAB_FILE, directory / EMOJI_FILE)

    @classmethod
    def from_files(cls, vocab_file: str | Path, emoji_file: str | Path) -> Vocabulary:
        """Read a vocabulary from two files, wherever they lie.

        Args:
            vocab_file: A `vocab.txt`.
            emoji_file: An `emoji.json`.

        Returns:
            The vocabulary.

        Raises:
            VocabularyError: A file is missing or broken; the message names the line.
        """
        surfaces = _parse_vocab(_read(Path(vocab_file)), str(vocab_file))
        emoji, emoji_inv = _parse_emoji(_read(Path(emoji_file)), str(emoji_file))
        return cls(surfaces, emoji, emoji_inv)

    def save(self, directory: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write both files into `directory`, made if need be, and return their paths.

        Args:
            directory: Where to.

        Returns:
            Paths of `vocab.txt` and `emoji.json`.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        return self.save_files(directory / VOCAB_FILE, directory / EMOJI_FILE)

    def save_files(self, vocab_file: Path, emoji_file: Path) -> tuple[Path, Path]:
        """Write both files under the names given, and return their paths.

        Args:
            vocab_file: Where `vocab.txt` goes.
            emoji_file: Where `emoji.json` goes.

        Returns:
            The paths.
        """
        vocab_file.write_text(self._vocab_text(), encoding="utf-8", newline="\n")
        emoji_file.write_text(self._emoji_text(), encoding="utf-8", newline="\n")
        return vocab_file, emoji_file

    def _vocab_text(self) -> str:
        return "".join(",".join(forms) + "\n" for forms in self.surfaces)

    def _emoji_text(self) -> str:
        tables = {"emoji": dict(self.emoji), "emoji_inv": dict(self.emoji_inv)}
        return json.dumps(tables, ensure_ascii=False, indent=0) + "\n"


def _restored(
    surfaces: tuple[tuple[str, ...], ...],
    emoji: tuple[tuple[str, str], ...],
    emoji_inv: tuple[tuple[str, str], ...],
) -> Vocabulary:
    return Vocabulary(surfaces, dict(emoji), dict(emoji_inv))


def _read(path: Path) -> str:
    """The text of a file, without a byte order mark and with LF for every kind of line end."""
    check_regular(path, VocabularyError)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise VocabularyError(
            f"{str(path.parent)!r} has no {path.name}; a vocabulary is {VOCAB_FILE} and"
            f" {EMOJI_FILE} in one directory, so put both there"
            if path.parent.is_dir()
            else f"there is no directory {str(path.parent)!r} with {VOCAB_FILE} and {EMOJI_FILE}"
        ) from error
    except OSError as error:
        raise VocabularyError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        _fail(path, line, f"byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parse_vocab(text: str, path: str) -> tuple[tuple[str, ...], ...]:
    lines = text.removesuffix("\n").split("\n")
    surfaces = []
    for number, line in enumerate(lines, start=1):
        forms = (",",) if line == "," else tuple(line.split(","))
        if not all(forms):
            shown = short_repr(line)
            _fail(path, number, f"{shown} has an empty form; write `form` or `form,variant`")
        if len(line) > MAX_FORM_LENGTH and (length := max(map(len, forms))) > MAX_FORM_LENGTH:
            _fail(
                path, number, f"a form of {length:,} characters; at most {MAX_FORM_LENGTH} are read"
            )
        surfaces.append(forms)
    return tuple(surfaces)


def _parse_emoji(text: str, path: str) -> tuple[dict[str, str], dict[str, str]]:
    try:
        data = parse_json(text)
    except json.JSONDecodeError as error:
        _fail(path, error.lineno, f"not JSON ({error.msg})")
    except (RecursionError, ValueError):  # also a number of 5,000 digits
        _fail(path, 1, "no emoji table: it is nested too deeply, or holds a huge number")
    tables = []
    for name in ("emoji", "emoji_inv"):
        table = data.get(name) if isinstance(data, dict) else None
        if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
            _fail(path, 1, f"needs an object {name!r} that maps strings to strings")
        if "" in table:
            _fail(path, 1, f"{name!r} has an empty key; remove it")
        for text in (*table, *table.values()):
            if len(text) > MAX_EMOJI_LENGTH:
                _fail(
                    path,
                    1,
                    f"{name!r} holds {short_repr(text)} of {len(text):,} characters; at most"
                    f" {MAX_EMOJI_LENGTH} are read",
                )
        tables.append(table)
    return tables[0], tables[1]


def _fail(path: str | Path, line: int, problem: str) -> NoReturn:
    raise VocabularyError(f"{str(path)!r}, line {line}: {problem}")
