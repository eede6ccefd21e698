"""What both READMEs promise: every Python session and every command is run."""

from __future__ import annotations

import doctest
import itertools
import json
import re
import shlex
from pathlib import Path

import pytest

from gpt_neox_japanese.corpus import read_documents
from tests.cli.run import run

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "README.md", ROOT / "README.ja.md"]

# What a README shows at full size and a test runs at a small one.
SMALLER = {
    "--size 8000": "--size 1200",
    "--tokens 45000000": "--tokens 256 --sequence-length 32 --batch-size 2 --dtype fp32",
    "--hidden-size 256": "--hidden-size 32",
    "--layers 6": "--layers 1",
    "--output data": "--output data --held-out 0.3",
    "--max-new-tokens 100": "--max-new-tokens 10",
}


def blocks(readme: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)


class GeneratedTextMayDiffer(doctest.OutputChecker):
    """Sampled text depends on the processor's rounding; that it is Japanese prose does not."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        prose = re.compile(r"[ぁ-ゖァ-ヺー一-鿿、。「」\s]{20,}")
        return got == want or bool(prose.search(want) and prose.search(got))


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_python_sessions_show_what_they_print(readme: Path) -> None:
    session = "".join(blocks(readme, "python"))
    test = doctest.DocTestParser().get_doctest(session, {}, readme.name, str(readme), 0)
    assert len(test.examples) > 10
    report: list[str] = []
    runner = doctest.DocTestRunner(GeneratedTextMayDiffer())
    runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


def test_both_readmes_show_the_same_commands_and_sessions() -> None:
    for language in ("console", "python"):
        assert blocks(READMES[0], language) == blocks(READMES[1], language)


@pytest.fixture
def corpus(corpus_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with a few short works in `corpus`."""
    monkeypatch.chdir(tmp_path)
    short = (d for d in read_documents([corpus_directory]) if 500 < len(d.text) < 3000)
    lines = [json.dumps({"id": d.id, "text": d.text}) for d in itertools.islice(short, 30)]
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "works.jsonl").write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.usefixtures("corpus")
def test_every_command_runs() -> None:
    commands = "".join(blocks(READMES[0], "console")).splitlines()
    assert len(commands) >= 9
    for command in commands:
        for large, small in SMALLER.items():
            command = command.replace(large, small)
        assert command.startswith("$ neox-ja ")
        result = run(*shlex.split(command)[2:])
        assert result.exit_code == 0, f"{command}\n{result.output}"
        assert result.stdout
