"""The text of the sources themselves."""

from __future__ import annotations

import unicodedata
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_no_source_has_a_character_that_normalization_would_change() -> None:
    for file in (*ROOT.glob("src/**/*.py"), *ROOT.glob("tests/**/*.py")):
        text = file.read_text(encoding="utf-8")
        changed = [ascii(c) for c in text if unicodedata.normalize("NFC", c) != c]
        assert not changed, f"{file}: write {changed} as escapes"
