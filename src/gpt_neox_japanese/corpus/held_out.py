"""Which text of a corpus is kept out of training.

Documents are chosen by a hash of their ids, so that the choice is the same on every machine, in
every order and in every part of the corpus. In a large corpus those below a fraction of all hashes
are about that fraction of the text. In a small one they may be none at all, or most of it; there
the documents are looked at first, and the hash up to which they are held out is chosen by how many
characters they have.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.corpus.blocks import read_blocks
from gpt_neox_japanese.corpus.documents import Document, Layout, hash_of
from gpt_neox_japanese.errors import CorpusError
from gpt_neox_japanese.files.remote import AnyPath, file_size

__all__ = ["HeldOut", "choose_held_out", "without"]

# Corpora with more bytes are not looked at first: that would take long, and chance is even there.
_BYTES_TO_LOOK_AT = 2**27

# Fewer characters say little about a model; of a corpus that is small itself, a tenth must do.
_MIN_CHARACTERS, _MAX_SHARE = 20_000, 0.1

# What is near enough to the amount that was asked for.
_LEAST, _MOST, _MOST_WITH_WHOLE = 0.5, 2.0, 1.5

_END_OF_SENTENCE = re.compile("[。！？\n]")
_CHARACTERS_TO_SEARCH = 500


@dataclass(frozen=True)
class HeldOut:
    """Tells training text from held-out text.

    Attributes:
        bound: Documents whose hash is smaller are held out.
        tail: Of a document with just this hash, so many characters at its end are held out, or a
            few less, from the beginning of a sentence on. Conversations are never cut.
    """

    bound: int
    tail: int = 0

    def split(self, document: Document) -> tuple[str, str]:
        """Divide the text of a document.

        Args:
            document: Of the corpus.

        Returns:
            What is to be trained on, and what is held out; one of them is empty, except in the
            document that is cut.

        Example:
            >>> document = Document("a", "吾輩は猫である。名前はまだ無い。", Path("a.txt"), 1)
            >>> HeldOut(hash_of("a") + 1).split(document)
            ('', '吾輩は猫である。名前はまだ無い。')
            >>> HeldOut(hash_of("a"), tail=9).split(document)
            ('吾輩は猫である。', '名前はまだ無い。')
        """
        text, number = document.text, hash_of(document.id)
        if number < self.bound:
            return "", text
        if number > self.bound or not self.tail:
            return text, ""
        cut = max(0, len(text) - self.tail)
        if cut:
            end = _END_OF_SENTENCE.search(text, cut, cut + _CHARACTERS_TO_SEARCH)
            cut = end.end() if end is not None and end.end() < len(text) else cut
        return text[:cut], text[cut:]


def choose_held_out(files: Sequence[AnyPath], layout: Layout, fraction: float) -> HeldOut:
    """Choose what is kept out of training.

    Args:
        files: All files of the corpus.
        layout: Where in the files the documents are.
        fraction: About how much of its characters: from 0 to below 1. A small corpus gives at
            least 20,000 characters, or a tenth of its text, unless it is to give none.

    Returns:
        The choice, which depends on the corpus and the fraction alone. Of a few conversations,
        which are held out whole or not at all, it may be none.
    """
    by_hash = HeldOut(int(fraction * 2**64))
    if not fraction or sum(map(file_size, files)) > _BYTES_TO_LOOK_AT:
        return by_hash
    hashes, lengths, documents = _look_at(files, layout)
    total = int(lengths.sum())
    wanted = max(fraction * total, min(_MIN_CHARACTERS, _MAX_SHARE * total))
    amount = int(lengths[hashes < by_hash.bound].sum())
    if not total or (_LEAST * wanted <= amount <= _MOST * wanted and amount < total):
        return by_hash
    held = np.cumsum(lengths)
    last = int(np.searchsorted(held, wanted))  # the id that makes it enough
    number, with_it = int(hashes[last]), int(held[last])
    before = with_it - int(lengths[last])
    if with_it <= _MOST_WITH_WHOLE * wanted and with_it < total:
        return HeldOut(number + 1)
    if before >= _LEAST * wanted:
        return HeldOut(number)
    if layout.conversations:
        is_nearer = with_it < total and with_it - wanted <= wanted - before
        return HeldOut(number + is_nearer)
    several = int(documents[last])  # with this id, each of which is cut
    tail = max(1, (round(wanted) - before) // several)
    return HeldOut(number, tail) if before + tail * several < total else HeldOut(0)


def without(files: Iterable[AnyPath], others: Iterable[AnyPath]) -> list[AnyPath]:
    """Take files out of a list of files.

    Args:
        files: Some files.
        others: Those that are to be taken out, by whatever path they are named.
    """
    real = set(map(_real, others))
    return [file for file in files if _real(file) not in real]


def _real(file: AnyPath) -> Path | tuple[str, str]:
    """What the file is called, whatever links lead to it, or whichever URL it was found below."""
    return file.resolve() if isinstance(file, Path) else (file.scheme, file.path)


def _look_at(
    files: Sequence[AnyPath], layout: Layout
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """The hash of every id, ascending, how many characters it has, and in how many documents.

    Ids may be there several times, as are names of files in several directories. Broken documents
    are passed over.
    """
    hashes, lengths = array("Q"), array("q")
    for block in read_blocks(files, layout):
        for document in block.documents():
            if not isinstance(document, CorpusError):
                hashes.append(hash_of(document.id))
                lengths.append(len(document.text))
    of_ids, places, documents = np.unique(
        np.array(hashes, np.uint64), return_inverse=True, return_counts=True
    )
    characters = np.zeros(len(of_ids), np.int64)
    np.add.at(characters, places, np.array(lengths, np.int64))
    return of_ids, characters, documents
