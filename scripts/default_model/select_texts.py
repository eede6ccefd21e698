"""Choose what the model in the package is trained on: a corpus of works → short texts that end.

    python scripts/default_model/select_texts.py CORPUS OUTPUT

CORPUS are files that `neox-ja prepare` reads, OUTPUT becomes one file `texts.jsonl` for it. The
works that `prepare` holds out come through as they are, so that its held-out part stays the same.
Of the others

- those that stand there twice go, and those that stand among the held-out ones in another edition:
  more than `MAX_SHARED` of a work's sequences of eight kanji are in one of them, whatever the kana;
- those whose brackets 「」 do not match in every tenth line, and those in another alphabet;
- notes of date and source after the end go, and what follows the last sentence;
- of long ones the first `MAX_CHARACTERS` stay, for one work in twenty held half of all text;
- what is left is cut at the ends of paragraphs into passages of `PASSAGE` characters. Each is a
  document of its own, in the order of the work: so a model sees thousands of ends where a
  sentence ends, and learns to end a text.

Nothing depends on chance: lengths are drawn by hashes of ids.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese import Codec
from gpt_neox_japanese.corpus import (
    Document,
    HeldOut,
    Layout,
    choose_held_out,
    corpus_files,
    is_held_out,
    read_documents,
)

HELD_OUT = 0.01  # the default of `neox-ja prepare`
MAX_SHARED = 0.3
MAX_CHARACTERS = 100_000
MAX_LATIN = 0.1
MAX_UNMATCHED = 0.1
PASSAGE = (400, 2000)
MIN_CHARACTERS = 60

_SENTENCE_END = re.compile(r"[。！？」』…―][）〕]?$")
_DATE_OR_SOURCE = r"(?:[年月日号夜稿記著訳誌完了終春夏秋冬『]|おわり|新聞)"
# A whole line in brackets, or one that begins with a star; a date at the end of the last line; and
# a line that is a date.
_NOTE_LINE = re.compile(rf"\s*(?:[（〔〈(［](?=.*{_DATE_OR_SOURCE}).*[）〕〉)］]|[＊※].*)\s*")
_NOTE_IN_LINE = re.compile(
    rf"(?<=[。」』！？…―])\s*[（〔][^（）〔〕]*{_DATE_OR_SOURCE}[^。]*[）〕]$"
)
_DATE_LINE = re.compile(
    r"\s*[―－─（]*(?:明治|大正|昭和|[一二三四五六七八九〇十０-９0-9]{1,4}[年月・、，．]"
    r"|[（(]?(?:完|了|終|終り|おわり|未完|つづく|幕)[）)]?[―－─]*\s*$)[^。」]{0,40}"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the corpus, choose, write, and tell what went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, nargs="+")
    parser.add_argument("output", type=Path)
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    files = corpus_files(options.corpus)
    if choose_held_out(files, Layout(), HELD_OUT) != HeldOut(int(HELD_OUT * 2**64)):
        parser.error("the corpus is so small that `prepare` holds out others than hashes say alone")
    works = list(read_documents(files))
    repeated = repeated_works(works)
    told: Counter[str] = Counter()
    with (options.output / "texts.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for work, is_repeated in zip(works, repeated, strict=True):
            reason: str | None
            if is_held_out(work.id, HELD_OUT):
                reason, texts = "held out", [(work.id, work.text)]
            elif reason := "repeated" if is_repeated else unsuitable(work.text):
                texts = []
            else:
                reason, texts = "chosen", list(passages(work))
            told[f"{reason}: works"] += 1
            told[f"{reason}: characters"] += len(work.text)
            told[f"{reason}: texts written"] += len(texts)
            told[f"{reason}: characters written"] += sum(len(text) for _, text in texts)
            for name, text in texts:
                line = json.dumps({"id": name, "text": text}, ensure_ascii=False)
                file.write(line + "\n")
    for name, count in sorted(told.items()):
        print(f"{name:40}{count:>14,}", file=sys.stderr)


def unsuitable(text: str) -> str | None:
    """Why a work is left out, by its text alone; None if it stays."""
    if sum(c.isascii() and c.isalpha() for c in text) > MAX_LATIN * len(text):
        return "in another alphabet"
    quoting = [line for line in text.split("\n") if "「" in line or "」" in line]
    unmatched = sum(line.count("「") != line.count("」") for line in quoting)
    if unmatched > max(2, MAX_UNMATCHED * len(quoting)):
        return "brackets do not match"
    return None


def without_notes(text: str) -> str:
    """A work without notes of date and source after its end."""
    lines = text.rstrip().split("\n")
    while len(lines) > 1 and (
        not lines[-1].strip() or _NOTE_LINE.fullmatch(lines[-1]) or _DATE_LINE.match(lines[-1])
    ):
        lines.pop()
    lines[-1] = _NOTE_IN_LINE.sub("", lines[-1].rstrip())
    return "\n".join(lines).rstrip()


def passages(work: Document) -> Iterator[tuple[str, str]]:
    """The passages of a work, `(id, text)`; each ends where a sentence and a paragraph end."""
    lines = without_notes(work.text)[:MAX_CHARACTERS].split("\n")
    if not any(map(_SENTENCE_END.search, lines)):
        return  # verse, lists, names
    number, rows, size = 0, list[str](), 0
    wanted = _length(work.id, 0)
    for line in lines:
        if not rows and not line.strip():
            continue
        rows.append(line)
        size += len(line) + 1
        if size >= wanted and _SENTENCE_END.search(line):
            yield _name(work.id, number), "\n".join(rows)
            number, rows, size = number + 1, [], 0
            wanted = _length(work.id, number)
    while rows and not _SENTENCE_END.search(rows[-1]):
        rows.pop()
    if sum(map(len, rows)) >= MIN_CHARACTERS:
        yield _name(work.id, number), "\n".join(rows)


def _length(work: str, number: int) -> int:
    digest = hashlib.sha256(f"{work} {number}".encode()).digest()
    low, high = PASSAGE
    return low + int.from_bytes(digest[:8], "big") % (high - low)


def _name(work: str, number: int) -> str:
    """An id that `prepare` does not hold out: a passage belongs where its work does."""
    name = f"{work}/{number}"
    while is_held_out(name, HELD_OUT):
        name += "+"
    return name


def repeated_works(works: list[Document]) -> list[bool]:
    """Which works are, in large part, in another one that stays.

    Held-out works stay, then longer ones before shorter ones.

    Args:
        works: All of them.

    Returns:
        Whether each goes.
    """
    codec = Codec.from_pretrained("default")
    marks = [_marks(codec, work.text) for work in works]
    held_out = [is_held_out(work.id, HELD_OUT) for work in works]
    order = sorted(range(len(works)), key=lambda i: (not held_out[i], -len(marks[i])))
    seen: dict[int, int] = {}
    repeated = [False] * len(works)
    for index in order:
        mine = marks[index]
        if not held_out[index] and len(mine) > 2:
            owners = Counter(seen[mark] for mark in mine if mark in seen)
            most = max(owners.values(), default=0)
            repeated[index] = most > MAX_SHARED * len(mine) or any(
                held_out[owner] and count > MAX_SHARED * len(marks[owner])
                for owner, count in owners.items()
            )
        if not repeated[index]:
            seen.update(dict.fromkeys((mark for mark in mine if mark not in seen), index))
    return repeated


def _marks(codec: Codec, text: str) -> list[int]:
    """Hashes of a sixteenth of a text's sequences of eight kanji, its own sixteenth everywhere."""
    # The tokenizer takes old and new forms of a kanji for one.
    kanji = re.sub(r"[^一-鿿]", "", codec.decode(codec.encode_to_numpy(text)))
    codes = np.frombuffer(kanji.encode("utf-32-le"), np.uint32).astype(np.uint64)
    marks: list[int] = np.unique(_sampled(_hashes(codes))).tolist()
    return marks


def _hashes(codes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    count = max(len(codes) - 7, 0)
    hashes = np.zeros(count, np.uint64)
    for offset in range(8):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + codes[offset : offset + count]
    return hashes ^ (hashes >> np.uint64(29))


def _sampled(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    chosen: NDArray[np.bool_] = (hashes * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(60) == 0
    return hashes[chosen]


if __name__ == "__main__":
    main()
