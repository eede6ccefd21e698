"""The maps for contributors lead to places that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (ROOT, ROOT / "src" / "gpt_neox_japanese")
NAME = re.compile(r"`(?:[\w./-]+/)?[\w.-]+\.(?:py|yml|json|toml|md)`|`[\w./-]+/`|`scripts/\w+`")
# Of model directories, and those that nobody shall write.
NOT_OURS = {
    *("config.json", "generation_config.json", "tokenizer_config.json", "emoji.json"),
    *("adapter_config.json", "utils.py", "common.py"),
}


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md"])
def test_every_file_that_is_named_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    names = {name.strip("`") for name in NAME.findall(text)} - NOT_OURS
    names = {name for name in names if "NAME" not in name}
    assert len(names) > 1
    there = {
        path.relative_to(folder).as_posix() for folder in FOLDERS for path in folder_files(folder)
    }
    for name in names:
        assert any(f"/{path}".endswith(f"/{name.rstrip('/')}") for path in there), name


def folder_files(folder: Path) -> list[Path]:
    """Files and folders of the project, those of .venv and its like left out."""
    kept = ("src", "tests", "benchmarks", "scripts", "examples", "docs", ".github")
    tops = [folder / name for name in kept] if folder == ROOT else [folder]
    return [*folder.glob("*.*"), *tops, *(path for top in tops for path in top.rglob("*"))]


def test_every_benchmark_and_its_result_is_on_the_map() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for program in (ROOT / "benchmarks").glob("bench_*.py"):
        assert program.name in text
    for result in (ROOT / "benchmarks" / "results").glob("*.json"):
        family = re.sub(r"^(engines?|model|generate)-.*", r"\1-", result.stem)
        assert family in text, result.name
