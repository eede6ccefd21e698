"""The readable twin: rules one by one, then against transformers' own tokenizer."""

from __future__ import annotations

from functools import cache
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt_neox_japanese.corpus import read_documents
from gpt_neox_japanese.errors import TokenizationError, VocabularyError
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.tokenizer.special_tokens import NO_TOKENS, AllowedSpecial
from tests.conftest import SHARED
from tests.tokenizer.small import vocabulary

DOCUMENTED = "吾輩は猫である🐯。実は慶応(慶應)大学出身"
DOCUMENTED_IDS = [
    *(30014, 26883, 26638, 27228, 25, 26650, 31732, 31679, 27809, 26638, 17749, 31592, 17749),
    *(31593, 321, 1281),
]


def tokens(
    text: str,
    pieces: list[str],
    *,
    legacy: bool = True,
    allowed_special: AllowedSpecial = NO_TOKENS,
) -> str:
    """The canonical forms of a text's tokens, with a bar between them."""
    codec = Codec(vocabulary(pieces), legacy=legacy)
    ids = codec.encode(text, allowed_special=allowed_special)
    return "|".join(codec.vocabulary.surfaces[i][0] for i in ids)


def test_smallest_id_wins_over_longest_match() -> None:
    assert tokens("です", ["で", "です", "す"]) == "で|す"
    assert tokens("です", ["です", "で", "す"]) == "です"


def test_longest_form_wins_where_both_have_one_id() -> None:
    assert tokens("ガガ", ["ガ,ガガ"]) == "ガ"


def test_variants_share_the_canonical_form() -> None:
    assert tokens("慶應", ["慶応,慶應"]) == "慶応"


def test_no_piece_is_longer_than_three_characters() -> None:
    assert tokens("あいうえ", ["あいうえ", "あいう", "え"]) == "あいう|え"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" ", "<SP>"),
        ("\u3000", "<SP>"),
        ("\n", "<BR>"),
        ("\r", "<BR>"),
        ("\r\n", "<BR>"),
        ("\n\r\n\r", "<BR>|<BR>|<BR>"),
        ("\t", "<TAB>"),
        ("カ—カ−", "カ|ー|カ|ー"),
    ],
)
def test_whitespace_and_dashes_are_replaced(text: str, expected: str) -> None:
    assert tokens(text, ["カ", "ー"]) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("¡", "<KIGOU>"),
        ("ǀ", "<KIGOU>"),
        ("\u0301", "<KIGOU>"),
        ("\u2000", "<U2000U2BFF>"),
        ("\u2bff", "<U2000U2BFF>"),
        ("\u2c00", "<|byte226|>|<|byte176|>|<|byte128|>"),
        ("A", "<|byte65|>"),
        ("\0", "<|byte0|>"),
    ],
)
def test_characters_without_an_entry_become_a_class_or_bytes(text: str, expected: str) -> None:
    assert tokens(text, ["猫"]) == expected


def test_earlier_emoji_key_shadows_a_longer_later_one() -> None:
    emoji = {"👍": "<|emoji1|>", "👍🏽": "<|emoji8|>"}
    codec = Codec(vocabulary([], emoji))
    names = [codec.vocabulary.surfaces[i][0] for i in codec.encode("👍🏽")]
    assert names[0] == "<|emoji1|>"
    assert len(names) == 5  # the skin tone is left over as four bytes


def test_emoji_keys_apply_one_after_the_other() -> None:
    emoji = {"bc": "<|emoji8|>", "ab": "<|emoji1|>"}
    codec = Codec(vocabulary(["a", "b", "c"], emoji))
    names = [codec.vocabulary.surfaces[i][0] for i in codec.encode("abcab")]
    assert names == ["a", "<|emoji8|>", "<|emoji1|>"]


@pytest.mark.parametrize("text", ["👍🏽", "👍🏿", "👩\u200d👩", "👩🏽\u200d👍🏿", "😀\ufe0f"])
def test_emoji_with_modifiers_is_one_token_unless_legacy(text: str) -> None:
    assert tokens(text, [], legacy=False).count("|>|") == 0
    assert tokens(f"{text}{text}", [], legacy=False).count("|>|") == 1


def test_comma_has_its_own_id_unless_legacy() -> None:
    assert tokens(",", [","], legacy=False) == ","
    assert tokens(",", [","], legacy=True) == "<|byte44|>"


def test_spelled_out_tags_are_text_unless_allowed() -> None:
    spelled = "<|endoftext|>"
    assert tokens(spelled, [], allowed_special="all") == "<|endoftext|>"
    assert "<|endoftext|>" not in tokens(spelled, [])
    assert tokens("<BR>", list("<BR>")) == "<|B|R|>"


def test_tag_lookup_takes_the_longest() -> None:
    assert tokens("<SP>x>", ["<SP>x>"], allowed_special="all") == "<SP>x>"


def test_offsets_cover_the_text_without_gap_or_overlap() -> None:
    text = "猫 \r\n👍🏽한—<BR>"
    codec = Codec(vocabulary(["猫", "ー"]))
    special: tuple[AllowedSpecial, ...] = ("all", NO_TOKENS)
    for allowed in special:
        offsets = codec.encode_with_offsets(text, allowed_special=allowed).offsets
        ends = [0]
        for start, end in offsets:
            assert (start, end) == tuple(ends[-2:]) or start == ends[-1]
            if start == ends[-1]:
                ends.append(end)
        assert ends[-1] == len(text)


def test_lone_surrogate_is_named() -> None:
    with pytest.raises(TokenizationError, match=r"U\+D83D"):
        tokens("\ud83d", [])


def test_unknown_token_must_exist() -> None:
    with pytest.raises(VocabularyError, match="<unk>"):
        Codec(vocabulary([]), unknown="<unk>")


# --- against transformers ---------------------------------------------------------------------


@cache
def published() -> Codec:
    return Codec.load(SHARED / "reference")


@cache
def oracle() -> object:
    from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseTokenizer

    directory = SHARED / "reference"
    return GPTNeoXJapaneseTokenizer(str(directory / "vocab.txt"), str(directory / "emoji.json"))


def oracle_ids(text: str) -> list[int]:
    tokenizer = oracle()
    return tokenizer.convert_tokens_to_ids(tokenizer._tokenize(text))  # type: ignore[attr-defined]


def test_documented_example_has_the_documented_ids(reference_directory: Path) -> None:
    codec = Codec.load(reference_directory)
    assert codec.encode(DOCUMENTED) == DOCUMENTED_IDS
    assert codec.decode(DOCUMENTED_IDS) == "吾輩は猫である🐯。実は慶応(慶応)大学出身"


def test_every_form_has_the_ids_of_transformers(reference_directory: Path) -> None:
    forms = list(published().vocabulary.ids)
    for start in range(0, len(forms), 5000):
        # A character without an entry keeps the forms apart.
        text = "\u3105".join(forms[start : start + 5000])
        assert published().encode(text, allowed_special="all") == oracle_ids(text)


def test_every_emoji_key_has_the_ids_of_transformers(reference_directory: Path) -> None:
    text = "猫".join(published().vocabulary.emoji)
    assert published().encode(text, allowed_special="all") == oracle_ids(text)
    text = "".join(published().vocabulary.emoji)
    assert published().encode(text, allowed_special="all") == oracle_ids(text)


def test_real_prose_has_the_ids_of_transformers(
    reference_directory: Path, corpus_directory: Path
) -> None:
    for file in sorted(corpus_directory.glob("*.zst")):
        text = "\n".join(work.text for work in islice(read_documents([file]), 8))[:60_000]
        assert published().encode(text, allowed_special="all") == oracle_ids(text)


FRAGMENTS = st.one_of(
    st.sampled_from(
        [
            *("<BR>", "<SP>", "<|endoftext|>", "<|byte65|>", "<|byte", "<", "<<", "<|emoji4|>"),
            *("🐯", "👍🏽", "👩‍👩‍👧", "🇯🇵🇯🇵", "🇯", "(^_^)", "(^_^", "m(_ _)m", "(>_<)", "ー—−"),
            *(
                " ",
                "\u3000",
                "\r\n",
                "\n",
                "\t",
                ",",
                "慶應",
                "ｶﾞ",
                "カ゛",
                "が",
                "①",
                "𠮟",
                "ゐヴヶ〇",
            ),
            *("한국어", "ñandú", "🫠", "\u200d", "\ufe0f", "¡", "ͣ", "①②", "─━", "Ａ"),
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.text(st.characters(min_codepoint=0x3041, max_codepoint=0x30FF), max_size=8),
)


@settings(max_examples=400)
@given(st.lists(FRAGMENTS, max_size=12))
@example(["<|endoftext|", "🐯", "|>"])
@example(["<<BR>"])
@example(["(^_^", " ", ")", "(>_<)"])
def test_mixed_text_has_the_ids_of_transformers(fragments: list[str]) -> None:
    if not (SHARED / "reference").is_dir():
        pytest.skip("needs the published vocabulary in ../shared/reference")
    text = "".join(fragments)
    assert published().encode(text, allowed_special="all") == oracle_ids(text)
