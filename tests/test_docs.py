"""The documentation against the tree: what pages name exists, and what exists is named."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

import gpt_neox_japanese

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "src" / "gpt_neox_japanese"
PAGES = sorted(DOCS.rglob("*.md"))
ALL_PAGES = [ROOT / "README.md", ROOT / "README.ja.md", *PAGES]
REFERENCE = sorted((DOCS / "reference").glob("*.md"))


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text_blocks(page: Path) -> list[str]:
    return re.findall(r"^```text\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def drawn_tree() -> dict[str, str]:
    """Folder → what the drawing says of it."""
    lines: dict[str, str] = {}
    folders: list[str] = []
    for line in text_blocks(DOCS / "architecture.md")[0].splitlines():
        found = re.fullmatch(r"( *)(\w+)/ +(.*)", line)
        assert found, line
        depth = len(found[1]) // 4
        folders[depth:] = [found[2]]
        lines["/".join(folders)] = found[3]
    return lines


def test_the_drawing_names_every_package_and_no_other() -> None:
    packages = {
        file.parent.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("__init__.py")
    }
    assert set(drawn_tree()) == packages - {"."}


def test_modules_that_the_drawing_begins_with_are_there() -> None:
    for folder, line in drawn_tree().items():
        for module in re.findall(r"\w+\.py", line):
            assert (PACKAGE / folder / module).is_file(), f"{folder}/{module}"


def test_the_drawn_layers_are_those_of_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = contracts["tool"]["importlinter"]["contracts"][0]["layers"]
    assert text_blocks(DOCS / "architecture.md")[1].splitlines() == layers


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.name == "architecture.md":  # names in the drawing stand behind their folder
        text = text.replace(text_blocks(page)[0], "")
    for name in re.findall(r"(?<![\w/.{<-])(?:[\w.-]+/)*[\w-]+\.py\b", text):
        found = (PACKAGE / name).is_file() or (ROOT / name).is_file()
        assert found, f"{name_of(page)} names {name}"
    for pattern in re.findall(r"benchmarks/results/[\w*-]+\.json", text):
        assert list(ROOT.glob(pattern)), f"{name_of(page)} names {pattern}"
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{name_of(page)} leads to {link}"


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_prose_reads_on_a_screen(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for line in text.splitlines():
        if not line.startswith("|"):
            assert len(line) <= 104, f"{name_of(page)}: {line}"


def test_every_page_can_be_reached() -> None:
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    listed = set(re.findall(r"[\w/-]+\.md", str(site["project"]["nav"])))
    index = DOCS / "decisions" / "index.md"
    links = re.findall(r"\]\(([\w/-]+\.md)\)", index.read_text(encoding="utf-8"))
    listed |= {f"decisions/{link}" for link in links}
    assert listed == {page.relative_to(DOCS).as_posix() for page in PAGES}


def documented() -> list[str]:
    """The names whose docstrings the reference shows."""
    text = "".join(page.read_text(encoding="utf-8") for page in REFERENCE)
    return re.findall(r"^::: ([\w.]+)$", text, re.M)


def test_the_reference_shows_every_public_name() -> None:
    shown = {name.rpartition(".")[2] for name in documented()}
    assert set(gpt_neox_japanese.__all__) - shown == set()


def test_what_the_reference_shows_without_a_module_is_public() -> None:
    for page in REFERENCE:
        text = page.read_text(encoding="utf-8")
        for name, options in re.findall(r"^::: ([\w.]+)\n((?:    .*\n)*)", text, re.M):
            public = name.rpartition(".")[2] in gpt_neox_japanese.__all__
            assert public or "show_root_full_path: true" in options, name


@pytest.mark.parametrize("name", documented())
def test_what_the_reference_shows_is_documented(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert getattr(importlib.import_module(module), attribute).__doc__
