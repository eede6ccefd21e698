from __future__ import annotations

from pathlib import Path

import pytest

from gpt_neox_japanese.tokenizer.build.statistics import Kind, coverage, dead_ids, text_statistics
from gpt_neox_japanese.tokenizer.codec import Codec
from tests.tokenizer.small import vocabulary


def dead_forms(*pieces: str, legacy: bool = True) -> list[str]:
    codec = Codec(vocabulary(pieces), legacy=legacy)
    dead = set(dead_ids(codec).tolist())
    return [piece for i, piece in enumerate(pieces) if i in dead]


def test_a_piece_behind_one_that_it_begins_with_is_dead() -> None:
    assert dead_forms("猫", "猫犬", "犬") == ["猫犬"]
    assert dead_forms("猫犬", "猫", "犬") == []
    assert dead_forms("犬", "猫犬", "猫") == []


def test_one_living_form_keeps_an_id_alive() -> None:
    assert dead_forms("国", "国学,國学", "國") == []
    assert dead_forms("国", "國", "国学,國学") == ["国学,國学"]


def test_a_form_that_another_line_takes_over_is_dead() -> None:
    assert dead_forms("猫", "猫") == ["猫"]
    codec = Codec(vocabulary(["猫", "猫"]))
    assert 0 in dead_ids(codec)
    assert 1 not in dead_ids(codec)


def test_what_normalization_replaces_and_what_is_too_long_is_dead() -> None:
    assert dead_forms("—", "a b", "😀", "一二三四", "猫") == ["—", "a b", "😀", "一二三四"]


def test_the_comma_is_dead_in_legacy_vocabularies_only() -> None:
    assert dead_forms(",") == [","]
    assert dead_forms(",", legacy=False) == []


def test_every_text_avoids_the_dead_ids(reference_directory: Path) -> None:
    codec = Codec.load(reference_directory)
    forms = [forms[0] for forms in codec.vocabulary.surfaces[:31718]]
    produced = set(codec.encode("".join(forms)))
    produced.update(codec.encode("".join(reversed(forms))))
    assert not produced & set(dead_ids(codec).tolist())


def test_a_third_of_the_published_vocabulary_is_dead(reference_directory: Path) -> None:
    found = coverage(Codec.load(reference_directory))
    assert (found.ids, found.forms, found.emoji) == (32_000, 155_781, 4_314)
    assert (found.ordinary, found.dead) == (31_718, 10_685)
    kinds = {kind.name: kind for kind in found.kinds}
    assert kinds["3 hiragana"] == Kind("3 hiragana", 6_014, 6_014, 5_862)
    assert kinds["2 hiragana"].ids == 2_401
    assert kinds["bytes"] == Kind("bytes", 255, 255, None)
    assert sum(kind.ids for kind in found.kinds) == found.ids
    assert sum(kind.dead or 0 for kind in found.kinds) == found.dead


def test_usage_counts_tokens_by_kind() -> None:
    codec = Codec(vocabulary(["猫犬", "猫", "犬", "は"]))
    used = text_statistics(codec, ["猫犬は", "鰯 "])
    assert (used.characters, used.tokens) == (5, 6)
    assert used.characters_per_token == pytest.approx(5 / 6)
    assert used.byte_share == pytest.approx(3 / 6)
    assert used.kind_shares["2 kanji"] == used.kind_shares["hiragana"] == pytest.approx(1 / 6)
    assert used.kind_shares["tags"] == pytest.approx(1 / 6)
    assert used.kind_shares["kanji"] == 0
    assert used.used == 6


def test_usage_of_no_text_is_nothing() -> None:
    used = text_statistics(Codec(vocabulary(["猫"])), [])
    assert (used.tokens, used.characters_per_token, used.byte_share) == (0, 0, 0)
