"""Running what documents show: Python sessions and commands."""

from __future__ import annotations

import doctest
import itertools
import json
import re
import shlex
from pathlib import Path

import pytest

from gpt_neox_japanese import default_model_directory
from gpt_neox_japanese.corpus import read_documents
from tests.cli.run import run

ROOT = Path(__file__).parents[1]

# What a document shows at full size and a test runs at a small one.
SMALLER = {
    "--size 8000": "--size 1200",
    "--heads 4": "--heads 4 --tokens 256 --sequence-length 32 --batch-size 2",
    "--init-from default": "--init-from default --steps 2 --sequence-length 32 --batch-size 2",
    "--hidden-size 256": "--hidden-size 32",
    "--layers 6": "--layers 1",
    "--max-new-tokens 100": "--max-new-tokens 10",
}


def blocks(document: Path, language: str) -> list[str]:
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(document: Path) -> list[str]:
    return "".join(blocks(document, "console")).splitlines()


class SampledTextMayDiffer(doctest.OutputChecker):
    """A sampled text depends on the last bit of the processor's `exp`.

    Printed prose of several lines may therefore be other Japanese prose, of about that length and
    nothing else. What is shown as a Python value must be equal.
    """

    _PROSE = re.compile(r"[ぁ-ゖァ-ヺー一-鿿々、。「」『』！？…―A-Z\s]{20,}")

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        if got == want:
            return True
        both_prose = self._PROSE.fullmatch(want) and self._PROSE.fullmatch(got)
        return bool(both_prose) and len(want) / 3 < len(got) < len(want) * 3


def run_sessions(document: Path) -> int:
    """Run all Python sessions of a document as one.

    Returns:
        How many examples it has.
    """
    session = "".join(blocks(document, "python"))
    test = doctest.DocTestParser().get_doctest(session, {}, document.name, str(document), 0)
    report: list[str] = []
    runner = doctest.DocTestRunner(SampledTextMayDiffer())
    runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)
    return len(test.examples)


def run_commands(document: Path) -> int:
    """Run all commands of a document in the working directory, at a small size.

    Returns:
        How many they are.
    """
    for command in commands(document):
        small = command
        for large, little in SMALLER.items():
            small = small.replace(large, little)
        assert small.startswith("$ neox-ja "), command
        result = run(*shlex.split(small)[2:])
        assert result.exit_code == 0, f"{command}\n{result.output}"
        assert result.stdout, command
    return len(commands(document))


def make_stand_ins(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in `directory`, where the model in the package has the names of the published one."""
    monkeypatch.chdir(directory)
    for name in ("abeja/gpt-neox-japanese-2.7b", "abeja-2.7b"):
        model = directory / name
        model.mkdir(parents=True)
        for file in default_model_directory().iterdir():
            (model / file.name).symlink_to(file)


def write_corpus(works: Path, directory: Path) -> None:
    """Put a few short works into `directory`."""
    short = (d for d in read_documents([works]) if 500 < len(d.text) < 3000)
    lines = [json.dumps({"id": d.id, "text": d.text}) for d in itertools.islice(short, 30)]
    directory.mkdir()
    (directory / "works.jsonl").write_text("\n".join(lines), encoding="utf-8")
