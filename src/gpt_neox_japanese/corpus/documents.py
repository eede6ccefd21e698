"""What a document is, and how one is made of a JSON line or a line of text."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass

from gpt_neox_japanese.corpus.conversations import messages_of
from gpt_neox_japanese.errors import CorpusError
from gpt_neox_japanese.files.remote import AnyPath

__all__ = [
    "Document",
    "Layout",
    "document_of_json",
    "document_of_line",
    "hash_of",
    "is_held_out",
    "name_of",
]


@dataclass(frozen=True)
class Document:
    """One text of a corpus.

    Attributes:
        id: The `id` of the JSON line or row; without one, `file:line`; for a text file its name.
        text: The text, free of lone surrogates.
        file: The file it came from.
        line: The line (or row) of that file it began at, counted from 1.
    """

    id: str
    text: str
    file: AnyPath
    line: int


@dataclass(frozen=True)
class Layout:
    """Where the documents of a file are.

    Attributes:
        text_field: The JSON field or Parquet column that holds the text.
        id_field: The one that holds the document's id; it may be missing.
        split_lines: Whether every line of a .txt file that is not blank is a document.
        conversations: Whether every line of a .jsonl file is a conversation (`messages_of`) and its
            text the JSON list of its messages; other files are refused.
    """

    text_field: str = "text"
    id_field: str = "id"
    split_lines: bool = False
    conversations: bool = False


def document_of_json(line: bytes, file: AnyPath, number: int, layout: Layout) -> Document:
    """The document of one line of a .jsonl file.

    Args:
        line: UTF-8.
        file: Where it stands.
        number: The line's number, from 1.
        layout: Which fields are read.

    Returns:
        The document.

    Raises:
        CorpusError: The line is not what it should be; the message names file and line.
    """
    source = _decode(line, file, number)
    try:
        fields = json.loads(source)
    except (ValueError, RecursionError) as error:  # also an integer of 5,000 digits
        raise CorpusError(f"{file}, line {number}: not JSON ({error})") from None
    text = fields.get(layout.text_field) if isinstance(fields, dict) else None
    if layout.conversations:
        messages = messages_of(fields, f"{file}, line {number}")
        text = json.dumps(messages, ensure_ascii=False)
    if not isinstance(text, str):
        raise CorpusError(
            f'{file}, line {number}: expected an object with a string "{layout.text_field}"'
        )
    given = fields.get(layout.id_field)
    try:
        document_id = f"{name_of(file)}:{number}" if given is None else str(given)
    except RecursionError:
        raise CorpusError(
            f'{file}, line {number}: "{layout.id_field}" is nested too deeply; expected a string'
        ) from None
    if "\\u" in source:  # strict UTF-8 has no lone surrogates, so only escapes can make them
        _check_surrogates(text, file, number)
        _check_surrogates(document_id, file, number)
    return Document(document_id, text, file, number)


def document_of_line(line: bytes, file: AnyPath, number: int) -> Document:
    """The document that one line of a .txt file is, without its line break.

    Args:
        line: UTF-8.
        file: Where it stands.
        number: The line's number, from 1.

    Returns:
        The document.

    Raises:
        CorpusError: The line is not UTF-8; the message names file and line.
    """
    text = _decode(line, file, number).removesuffix("\r")
    return Document(f"{name_of(file)}:{number}", text, file, number)


def _decode(line: bytes, file: AnyPath, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{file}, line {number}: not UTF-8 ({error.reason})") from None


def _check_surrogates(text: str, file: AnyPath, number: int) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CorpusError(
            f"{file}, line {number}: lone surrogate U+{ord(text[error.start]):04X} "
            f"at character {error.start}"
        ) from None


def name_of(file: AnyPath) -> str:
    """The name of a file as text that can be written; bytes that are not UTF-8 are escaped.

    In the locale C, Python knows no other bytes than ASCII, and names that were made on another
    system may not be UTF-8 anywhere.

    Args:
        file: Any file.

    Returns:
        Its name, without directories.
    """
    try:
        return os.fsencode(file.name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # text already, in a locale whose files cannot be named so
        return file.name


def is_held_out(document_id: str, fraction: float) -> bool:
    """Whether a document of a large corpus is held out, by its id alone; see `choose_held_out`.

    The decision is the same on every machine and for every order of the corpus, and a document
    held out at one fraction stays held out at every larger one.

    Args:
        document_id: The document's id.
        fraction: The wanted size of the held-out part, from 0 to 1.

    Returns:
        Whether it is kept out of training.
    """
    return hash_of(document_id) < fraction * 2**64


def hash_of(document_id: str) -> int:
    """A number from 0 to below 2^64 that an id alone decides.

    Args:
        document_id: The document's id.
    """
    digest = hashlib.sha256(document_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")
