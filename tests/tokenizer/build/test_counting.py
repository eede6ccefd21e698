from __future__ import annotations

import re

import pytest

from gpt_neox_japanese.tokenizer.build import counting
from gpt_neox_japanese.tokenizer.build.counting import KANJI, SCRIPT_RUN, count, thin


def test_runs_end_where_the_script_changes() -> None:
    text = "人々がカレーを食べる、ーーabc𠮟る"
    assert SCRIPT_RUN.findall(text) == [
        *("人々", "が", "カレー", "を", "食", "べる"),
        *("𠮟", "る"),
    ]


def test_kanji_are_those_of_their_blocks() -> None:
    blocks = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x323B0))
    kanji = {"々", *(chr(code) for start, end in blocks for code in range(start, end))}
    found = {chr(code) for code in range(0x110000) if re.match(f"[{KANJI}]", chr(code))}
    assert found == kanji


def test_other_scripts_private_characters_and_lone_surrogates_are_in_no_run() -> None:
    for text in ("한국어", "ꀀꀁ", "\ue000\ue001", "\ud800"):
        assert SCRIPT_RUN.findall(f"猫{text}犬") == ["猫", "犬"]


def test_characters_and_runs_are_counted() -> None:
    characters, runs = count(["猫と猫", "犬と"])
    assert characters == {"猫": 2, "と": 2, "犬": 1}
    assert runs == {"猫": 2, "と": 2, "犬": 1}


def test_thinning_keeps_frequent_runs_exactly() -> None:
    assert thin({"猫": 7, "犬": 4}, 4) == {"猫": 7, "犬": 4}


def test_thinning_keeps_the_expected_number_of_rare_runs() -> None:
    runs = {f"{i}": 1 + i % 3 for i in range(30_000)}
    thinned = thin(runs, 8)
    assert set(thinned.values()) == {8}
    assert thinned.total() == pytest.approx(sum(runs.values()), rel=0.05)
    assert thin(runs, 8) == thinned


def test_the_table_of_runs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_MAX_RUNS", 100)
    _, runs = count(chr(code) for code in range(0x4E00, 0x5600))
    assert 0 < len(runs) <= 100
