"""How many of a model's sentences are grammatical, by readers who do not know which are a model's.

    python scripts/default_model/blind_grading.py ask MODEL data/held-out.jsonl DIR [--texts 60]
    python scripts/default_model/blind_grading.py tell DIR GRADES [GRADES ...]

`ask` takes sentences out of works that were held out, and lets the model go on from each. Among its
texts it mixes a third as many that go on as their author did. DIR gets `sheet.md`, which holds the
texts sentence by sentence in an order drawn at random, and `key.json`, which says whose each is and
which no reader sees. A reader writes one line a sentence, its number and 1 or 0: whether a native
reader would take it for a sentence of correct Japanese after the one before, whatever sense it
makes. `tell` gives the shares of both, and how often the readers agree.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from gpt_neox_japanese import TextGenerator
from gpt_neox_japanese.corpus import read_documents

MODEL, AUTHOR = "model", "author"
SHEET, KEY = "sheet.md", "key.json"
_TOKENS = 100  # of a text of the model; an author's is about as long
_CHARACTERS = 150
_SENTENCE = re.compile(r"[^。！？\n]+(?:[。！？]+[」』）]*|\n|$)")


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    asking = commands.add_parser("ask")
    asking.add_argument("model")
    asking.add_argument("held_out", type=Path)
    asking.add_argument("directory", type=Path)
    asking.add_argument("--texts", type=int, default=60)
    asking.add_argument("--seed", type=int, default=0)
    asking.set_defaults(run=ask)
    telling = commands.add_parser("tell")
    telling.add_argument("directory", type=Path)
    telling.add_argument("grades", type=Path, nargs="+")
    telling.set_defaults(run=tell)
    options = parser.parse_args(arguments)
    options.run(options)


def ask(options: argparse.Namespace) -> None:
    """Write the sheet and its key."""
    chance = random.Random(options.seed)  # noqa: S311 - the same sheet each time
    works = list(read_documents([options.held_out]))
    chance.shuffle(works)
    count, controls = options.texts, options.texts // 3
    places: dict[str, str] = {}  # a sentence is never taken twice
    for work in works * (1 + 3 * (count + controls) // len(works)):
        if len(places) < count + controls and (place := _place_in(work.text, chance)):
            places.setdefault(*place)
    if len(places) < count + controls:
        raise SystemExit(f"{options.held_out} has too few sentences; ask for fewer texts")
    leads = list(places)[:count]
    with TextGenerator.from_pretrained(options.model) as generator:
        written = generator.generate(
            leads, max_new_tokens=_TOKENS, seed=options.seed, end_at_sentence=True
        )
    texts = [(MODEL, lead, text) for lead, text in zip(leads, written, strict=True)]
    texts += [(AUTHOR, *place) for place in list(places.items())[count:]]
    chance.shuffle(texts)
    options.directory.mkdir(parents=True, exist_ok=True)
    sheet = "\n".join(_on_sheet(number, *text[1:]) for number, text in enumerate(texts, 1))
    (options.directory / SHEET).write_text(sheet, encoding="utf-8")
    key = {str(number): whose for number, (whose, _, _) in enumerate(texts, 1)}
    (options.directory / KEY).write_text(json.dumps(key, indent=1), encoding="utf-8")
    print(f"{options.directory / SHEET}: {count} texts of the model, {len(texts) - count} others")


def tell(options: argparse.Namespace) -> None:
    """Print shares and agreement."""
    key = json.loads((options.directory / KEY).read_text(encoding="utf-8"))
    readers = [dict(_grades_in(path)) for path in options.grades]
    asked = set(re.findall(r"(?m)^(\d+\.\d+) ", (options.directory / SHEET).read_text("utf-8")))
    for path, grades in zip(options.grades, readers, strict=True):
        if grades.keys() != asked:
            raise SystemExit(f"{path} and the sheet differ in {sorted(grades.keys() ^ asked)[:9]}")
    shares: dict[str, list[float]] = defaultdict(list)
    for grades in readers:
        for whose in (MODEL, AUTHOR):
            own = [good for place, good in grades.items() if key[place.split(".")[0]] == whose]
            shares[whose].append(sum(own) / len(own))
    agreed = [len({grades[place] for grades in readers}) == 1 for place in asked]
    for whose, values in shares.items():
        each = ", ".join(f"{value:.1%}" for value in values)
        print(f"{whose}: {sum(values) / len(values):.1%} of the sentences ({each})")
    print(f"{len(asked)} sentences; {sum(agreed) / len(agreed):.1%} with one grade")


def _place_in(text: str, chance: random.Random) -> tuple[str, str] | None:
    """A sentence of a work and what follows it there; None if the work has no such place."""
    sentences = list(_SENTENCE.finditer(text))
    candidates = [
        match
        for match in sentences[:-1]
        if 8 <= len(match[0]) <= 60 and match[0].endswith("。") and _is_outside(text, match.end())
    ]
    if not candidates:
        return None
    lead = chance.choice(candidates)
    rest = text[lead.end() : lead.end() + 2 * _CHARACTERS]
    following = ""
    for match in _SENTENCE.finditer(rest):
        if match.end() == len(rest) or (following and match.end() > _CHARACTERS):
            break
        following = rest[: match.end()]
    return (lead[0].strip(), following) if following.strip() else None


def _is_outside(text: str, end: int) -> bool:
    """Whether no quotation is open at a place in a line."""
    line = text[text.rfind("\n", 0, end) + 1 : end]
    return all(line.count(one) == line.count(other) for one, other in ("「」", "『』", "（）"))


def _on_sheet(number: int, lead: str, text: str) -> str:
    sentences = [match[0].strip() for match in _SENTENCE.finditer(text)]
    lines = [f"{number}.{i} {each}" for i, each in enumerate(filter(None, sentences), 1)]
    return "\n".join([f"（{lead}）", *lines, ""])


def _grades_in(path: Path) -> Iterator[tuple[str, bool]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            place, grade = line.split()
            if grade not in ("0", "1"):
                raise SystemExit(f"{path}: {line!r} is no number and a grade, 0 or 1")
            yield place, grade == "1"


if __name__ == "__main__":
    main()
