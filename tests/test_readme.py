"""What both READMEs and the guide promise: every Python session and every command is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.run import run
from tests.documented import (
    ROOT,
    SampledTextMayDiffer,
    blocks,
    commands,
    make_stand_ins,
    run_commands,
    run_sessions,
    write_corpus,
)

READMES = [ROOT / "README.md", ROOT / "README.ja.md"]
# own-model.md has a test of its own, tests/test_training_guide.py.
GUIDE = sorted(set((ROOT / "docs" / "guide").glob("*.md")) - {ROOT / "docs/guide/own-model.md"})


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_python_sessions_show_what_they_print(readme: Path) -> None:
    assert run_sessions(readme) > 10


def test_both_readmes_show_the_same_commands_and_sessions() -> None:
    for language in ("console", "python", "text"):
        assert blocks(READMES[0], language) == blocks(READMES[1], language)


def test_every_command_of_the_readme_runs(
    corpus_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_stand_ins(tmp_path, monkeypatch)
    write_corpus(corpus_directory, tmp_path / "corpus")
    assert run_commands(READMES[0]) >= 9


@pytest.mark.parametrize("page", GUIDE, ids=lambda path: path.name)
def test_commands_and_sessions_of_the_guide_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_stand_ins(tmp_path, monkeypatch)
    (tmp_path / "corpus").mkdir()
    for name in ("one.txt", "two.txt"):
        (tmp_path / "corpus" / name).write_text("吾輩は猫である。", encoding="utf-8")
    assert run_commands(page) == len(commands(page))
    assert run_sessions(page) == "".join(blocks(page, "python")).count(">>>")


def test_the_sample_is_what_the_command_writes() -> None:
    [sample] = [block for block in blocks(READMES[0], "text") if block.startswith("$ neox-ja")]
    command, shown = sample.split("\n", 1)
    arguments = re.fullmatch(r'\$ neox-ja generate "(.+)" --seed 3 --max-new-tokens 100', command)
    assert arguments
    result = run("generate", arguments[1], "--seed", 3, "--max-new-tokens", 100)
    assert result.exit_code == 0, result.output
    # The sample is broken into lines that fit a page.
    want, got = (re.sub(r"\n(?! )", "", text) for text in (shown, result.stdout))
    assert SampledTextMayDiffer().check_output(want, got, 0)


def test_prose_is_not_mistaken_for_a_value_or_an_error() -> None:
    checker = SampledTextMayDiffer()
    prose = "その夜、懊悩と顔を見合わせて、不服そうに笑っていた。子供\n"
    assert checker.check_output(prose, prose[::-1], 0)
    assert not checker.check_output(prose, "", 0)
    assert not checker.check_output(prose, prose * 4, 0)
    assert not checker.check_output(prose, f"ValueError: {prose}", 0)
    assert not checker.check_output(f"'{prose}'", f"'{prose[::-1]}'", 0)
