from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_neox_japanese.errors import TokenizationError
from gpt_neox_japanese.tokenizer.codec import Codec
from tests.tokenizer.small import vocabulary

CODEC = Codec(vocabulary(["吾輩", "猫", "は", "ー"]), legacy=False)


@pytest.mark.parametrize(
    "text",
    [
        "  猫は\n\n\t吾輩 ",
        "한국어 ñandú 🫠",
        "<|endoftext|><BR><|byte65|>",
        "",
    ],
)
def test_text_survives_encoding_and_decoding(text: str) -> None:
    assert CODEC.decode(CODEC.encode(text)) == text


def test_classes_are_decoded_to_one_of_their_characters() -> None:
    assert CODEC.decode(CODEC.encode("¡†👍🏽😀")) == "ǀ‖👍😀"


def test_incomplete_bytes_become_replacement_characters() -> None:
    ids = CODEC.encode("한")
    assert CODEC.decode([*ids[:2], *CODEC.encode("猫")]) == "�猫"
    assert CODEC.decode(ids[1:]) == "��"


def test_stream_shows_a_character_once_it_is_complete_and_no_sooner() -> None:
    stream = CODEC.stream_decoder()
    assert [stream.feed(i) for i in CODEC.encode("猫한 は")] == [
        "猫",
        "",
        "",
        "한",
        " ",
        "は",
    ]
    assert stream.finish() == ""


def test_stream_that_ignores_errors_shows_no_replacement_character() -> None:
    half = CODEC.encode("한")[:2]
    stream = CODEC.stream_decoder(errors="ignore")
    fed = [stream.feed(i) for i in [*half, *CODEC.encode("猫"), *half]]
    assert "".join(fed) + stream.finish() == "猫"


@given(st.lists(st.integers(0, len(CODEC.vocabulary) - 1)))
def test_stream_and_whole_decoding_agree(ids: list[int]) -> None:
    stream = CODEC.stream_decoder()
    assert "".join(stream.feed(i) for i in ids) + stream.finish() == CODEC.decode(ids)


@given(st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0x1FFF)))
def test_decoding_and_encoding_again_is_stable(text: str) -> None:
    once = CODEC.decode(CODEC.encode(text))
    assert CODEC.decode(CODEC.encode(once)) == once


@pytest.mark.parametrize("bad", [-1, len(CODEC.vocabulary)])
def test_id_outside_the_vocabulary_is_named(bad: int) -> None:
    with pytest.raises(TokenizationError, match=f"id {bad} "):
        CODEC.decode([bad])


def test_arrays_and_lists_decode_alike() -> None:
    ids = CODEC.encode_to_numpy("猫は")
    assert ids.dtype == np.int32
    assert CODEC.decode(ids) == CODEC.decode(ids.tolist()) == "猫は"
    assert CODEC.decode_batch([ids, ids[:1]]) == ["猫は", "猫"]


def test_options_are_saved_and_loaded(tmp_path: Path) -> None:
    Codec(CODEC.vocabulary, legacy=False, clean=True).save(tmp_path)
    loaded = Codec.load(tmp_path)
    assert (loaded.legacy, loaded.clean) == (False, True)
    assert loaded.vocabulary == CODEC.vocabulary


def test_vocabulary_without_a_config_is_legacy(tmp_path: Path) -> None:
    CODEC.vocabulary.save(tmp_path)
    assert Codec.load(tmp_path).legacy


@pytest.mark.parametrize("config", ["{", "[]", '{"legacy": "no"}', "[" * 100_000])
def test_broken_config_is_named(tmp_path: Path, config: str) -> None:
    CODEC.vocabulary.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(config)
    with pytest.raises(ValueError, match=r"tokenizer_config\.json"):
        Codec.load(tmp_path)


@given(st.lists(st.integers(0, len(CODEC.vocabulary) - 1), max_size=50))
def test_decoding_much_and_little_agree(ids: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpt_neox_japanese.tokenizer.decoding._IDS_BEFORE_KERNEL", 0)
        by_kernel = CODEC.decode(np.array(ids, dtype=np.int64))
    stream = CODEC.stream_decoder()
    assert by_kernel == "".join(stream.feed(i) for i in ids) + stream.finish()


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ([1.5], r"1\.5 is no id"),
        (["a"], "'a' is no id"),
        ([1, 10**20], "id 100000000000000000000 is outside the vocabulary"),
        ([10**400], r"id 1000\S*\.\.\.\S*000 is outside the vocabulary"),
        (np.zeros((1, 1), dtype=np.int32), "integers in a row"),
        ([True], "integers in a row"),
    ],
)
def test_ids_that_are_no_row_of_integers_are_named(bad: Any, problem: str) -> None:
    with pytest.raises(TokenizationError, match=problem):
        CODEC.decode(bad)


def test_nothing_decodes_to_nothing() -> None:
    assert CODEC.decode([]) == CODEC.decode(iter(())) == ""
