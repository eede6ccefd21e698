"""The kernel gives what its twin in plain Python gives, and that gives what transformers gives.

To see the lines that are covered, run these tests with the JIT off:
`NUMBA_DISABLE_JIT=1 pytest tests/tokenizer`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain, islice

import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt_neox_japanese.errors import TokenizationError
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.tokenizer.special_tokens import NO_TOKENS, AllowedSpecial
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary
from tests.conftest import SHARED
from tests.tokenizer.encoding.test_python_encoder import FRAGMENTS, oracle_ids
from tests.tokenizer.small import TAGS, vocabulary

SCALARS = [*map(chr, range(0xD800)), *map(chr, range(0xE000, 0x110000))]

needs_speed = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="too long for a kernel that is not compiled"
)


@cache
def published(*, legacy: bool = True, clean: bool = False) -> Codec:
    if not (SHARED / "reference").is_dir():
        pytest.skip("needs the published vocabulary in ../shared/reference")
    vocabulary = Vocabulary.load(SHARED / "reference")
    return Codec(vocabulary, legacy=legacy, clean=clean, jit_threshold=0)


@cache
def small(*, legacy: bool = True, clean: bool = False) -> Codec:
    pieces = ["です", "で", "すか", "ー", "で,デ", "ガ,ガガ", "猫です", ",", "<B", "<", "R", "k\0"]
    emoji = {"bc": "<|emoji8|>", "ab": "<|emoji1|>", "🇦🇺": "<|emoji1|>", "🇺🇸": "<|emoji8|>"}
    emoji |= {
        "👍": "<|emoji8|>",
        "👍🏽": "<|emoji8|>",
        "🏽": "<|emoji1|>",
        "👩\u200d": "<|emoji8|>",
    }
    emoji |= {"🇸🇦": "<|emoji1|>", "a ー": "<|emoji1|>", "ー(": "<|emoji1|>", "aa": "<|emoji8|>"}
    return Codec(vocabulary(pieces, emoji), legacy=legacy, clean=clean, jit_threshold=0)


@cache
def twin(codec: Codec) -> Codec:
    """The same in plain Python, which no text is long enough to leave."""
    options = {"legacy": codec.legacy, "clean": codec.clean}
    return Codec(codec.vocabulary, **options, jit_threshold=2**62)


def assert_twins_agree(codec: Codec, text: str) -> None:
    special: tuple[AllowedSpecial, ...] = (NO_TOKENS, "all")
    for allowed in special:
        expected = twin(codec).encode_with_offsets(text, allowed_special=allowed)
        ids, offsets = codec.encode_with_offsets(text, allowed_special=allowed)
        assert ids.tolist() == expected.ids.tolist()
        assert offsets.tolist() == expected.offsets.tolist()
        assert codec.encode(text, allowed_special=allowed) == expected.ids.tolist()


SMALL_TEXT = st.lists(
    st.sampled_from(
        [
            *"ですか猫デガab<>BR|SPkc(ー—− \u3000\t\n\0한ñ¡†🫠🇦🇺🇸👍🏽👩\u200d\ufe0f\u20e3",
            *"\U000e0067,1@.円",
            *(
                "\r\n",
                "\r",
                "です",
                "<BR>",
                "<|endoftext|>",
                "🇦🇺🇸",
                "🇦🇺🇸🇦",
                "👩\u200d👩\u200d",
                "aaa",
            ),
            *("http://a.b", "090-1234-5678", "2020年5月1日", "100円", "─━", "a@b.cd"),
        ]
    ),
    max_size=20,
).map("".join)


@settings(max_examples=300)
@given(SMALL_TEXT, st.booleans(), st.booleans())
@example("👩\u200d👩\u200d👩", False, False)
@example("👍🏽🏽\ufe0f", False, False)
@example("a—(", True, False)
def test_kernel_and_twin_agree_on_a_small_vocabulary(text: str, legacy: bool, clean: bool) -> None:
    assert_twins_agree(small(legacy=legacy, clean=clean), text)


@settings(max_examples=200)
@given(st.lists(FRAGMENTS, max_size=12).map("".join), st.booleans(), st.booleans())
def test_kernel_and_twin_agree_on_the_published_vocabulary(
    text: str, legacy: bool, clean: bool
) -> None:
    assert_twins_agree(published(legacy=legacy, clean=clean), text)


def test_kernel_and_twin_agree_on_every_form() -> None:
    text = "\u3105".join(published().vocabulary.ids)
    assert_twins_agree(published(), text)


@pytest.mark.parametrize("legacy", [True, False])
def test_kernel_and_twin_agree_on_every_character(legacy: bool) -> None:
    codec = published(legacy=legacy)
    step = 40 if numba.config.DISABLE_JIT else 1
    text = "\n".join(SCALARS[::step])
    expected = twin(codec).encode_with_offsets(text)
    ids, offsets = codec.encode_with_offsets(text)
    assert np.array_equal(ids, expected.ids)
    assert np.array_equal(offsets, expected.offsets)


@needs_speed
def test_characters_that_are_in_no_key_are_the_same_between_kana() -> None:
    codec = published()
    alphabet = set("".join([*codec.vocabulary.ids, *codec.vocabulary.emoji]))
    others = [character for character in SCALARS if character not in alphabet]
    alone = codec.encode_batch_to_numpy(others)
    between = codec.encode_batch_to_numpy([f"か{character}き" for character in others])
    ka, ki = codec.encode("か")[0], codec.encode("き")[0]
    assert np.array_equal(np.diff(between.bounds), np.diff(alone.bounds) + 2)
    first, last = between.bounds[:-1], between.bounds[1:] - 1
    assert (between.ids[first] == ka).all()
    assert (between.ids[last] == ki).all()
    assert np.array_equal(np.delete(between.ids, [*first, *last]), alone.ids)
    assert_twins_agree(codec, "\n".join(f"か{character}き" for character in sorted(alphabet)))


def test_transformers_and_twin_agree_on_every_24th_character() -> None:
    text = "か".join(SCALARS[::24])
    assert twin(published()).encode(text, allowed_special="all") == oracle_ids(text)


@pytest.mark.slow
@needs_speed
@pytest.mark.parametrize("around", ["{}\n", "か{}き"])
def test_transformers_and_kernel_agree_on_every_character(around: str) -> None:
    for start in range(0, len(SCALARS), 50_000):
        text = "".join(map(around.format, SCALARS[start : start + 50_000]))
        assert published().encode(text, allowed_special="all") == oracle_ids(text)


def overlapping(keys: Iterable[str]) -> Iterator[str]:
    """Every text in which the end of one key is the beginning of another."""
    by_beginning: dict[str, list[str]] = {}
    for key in keys:
        for length in range(1, len(key)):
            by_beginning.setdefault(key[:length], []).append(key)
    for key in keys:
        for length in range(1, len(key)):
            for other in by_beginning.get(key[-length:], ()):
                yield key + other[length:]


@pytest.mark.parametrize("legacy", [True, False])
def test_kernel_and_twin_agree_on_every_emoji_and_overlap(legacy: bool) -> None:
    codec = published(legacy=legacy)
    keys = list(codec.vocabulary.emoji)
    overlaps = list(overlapping(keys))
    assert len(overlaps) > 1000
    step = 100 if numba.config.DISABLE_JIT else 1
    assert_twins_agree(codec, "".join(keys[::step]))
    text = "猫".join([*keys, *overlaps][::step])
    assert codec.encode(text) == twin(codec).encode(text)


def test_transformers_and_kernel_agree_on_emoji_that_overlap() -> None:
    text = "猫".join(overlapping(published().vocabulary.emoji))[:100_000]
    assert published().encode(text, allowed_special="all") == oracle_ids(text)


@pytest.mark.parametrize(
    "link", ["🇦🇺🇸", "🇯🇵🇵🇯", "👩\u200d❤\ufe0f\u200d👩", "👍🏽🏽", "(^_^)(^_^", "aab", "👩\u200d"]
)
@pytest.mark.parametrize("legacy", [True, False])
def test_kernel_and_twin_agree_on_long_chains(link: str, legacy: bool) -> None:
    for shift in range(3):
        assert_twins_agree(published(legacy=legacy), link[shift:] + link * 500)
        assert_twins_agree(small(legacy=legacy), link[shift:] + link * 500)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("clean", [True, False])
def test_kernel_and_twin_agree_beyond_one_block(legacy: bool, clean: bool) -> None:
    draw = random.Random(7)
    parts = ["です", "\n", "\r\n", "🇦🇺🇸", "<BR>", "한", "100円", " ", "猫ですか", "\r", "👍🏽"]
    codec = small(legacy=legacy, clean=clean)
    assert_twins_agree(codec, "".join(draw.choices(parts, k=4_000)))
    assert_twins_agree(codec, "".join(draw.choices([p for p in parts if "\n" not in p], k=4_000)))


@needs_speed
def test_200_000_mixed_texts_have_the_ids_of_transformers() -> None:
    draw = random.Random(11)
    codec = published()
    forms, keys = list(codec.vocabulary.ids), list(codec.vocabulary.emoji)
    texts = [
        "".join(
            draw.choice((draw.choice(forms), draw.choice(keys), draw.choice(SCALARS), " ", "<"))
            for _ in range(draw.randrange(6))
        )
        for _ in range(200_000)
    ]
    encoded = codec.encode_batch_to_numpy(texts, allowed_special="all")
    # One call for many texts, kept apart by a character that is in no form, key or tag.
    joined = codec.encode_batch_to_numpy(["\u3105" + text for text in texts], allowed_special="all")
    expected = [
        oracle_ids("".join("\u3105" + text for text in texts[start : start + 10_000]))
        for start in range(0, len(texts), 10_000)
    ]
    assert joined.ids.tolist() == list(chain.from_iterable(expected))
    assert all(np.array_equal(row[3:], alone) for row, alone in zip(joined, encoded, strict=True))


def test_batch_gives_what_single_calls_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt_neox_japanese.tokenizer.encoding.batching._CHARACTERS_PER_TASK", 10)
    texts = ["です\r", "\nか", "", "🇦🇺", "🇸です" * 9, "", "a\0"]
    for codec in (small(), small(legacy=False, clean=True)):
        for threads in (1, 3, None):
            rows = codec.encode_batch_to_numpy(texts, num_threads=threads)
            assert [row.tolist() for row in rows] == [codec.encode(t) for t in texts]
            assert len(rows) == len(texts)
            assert rows[-1].tolist() == codec.encode(texts[-1])
    assert len(small().encode_batch_to_numpy([])) == 0


def test_rows_of_a_batch_are_views() -> None:
    rows = small().encode_batch_to_numpy(["です", "か"])
    assert np.shares_memory(rows[1], rows.ids)
    with pytest.raises(IndexError):
        rows[2]


@given(SMALL_TEXT)
def test_bytes_give_what_text_gives(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpt_neox_japanese.tokenizer.encoding.batching._BYTES_PER_TASK", 5)
        for codec in (small(), small(clean=True)):
            expected = codec.encode(text)
            data = text.encode()
            assert codec.encode_bytes(data).tolist() == expected
            assert (
                codec.encode_bytes(memoryview(bytearray(data)), num_threads=2).tolist() == expected
            )


@settings(max_examples=500)
@given(
    st.lists(
        st.sampled_from(
            [
                *(b"\xe3\x81", b"\x82", b"\xc3", b"\xf5", b"\xff", b"\xc0\x80", b"\xe0\x80\x80"),
                *(b"\xed\xa0\x80", b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80"),
                *(b"\n", b"a", "한🫠ñ".encode()),
            ]
        ),
        max_size=6,
    ).map(b"".join)
)
def test_bytes_that_are_not_utf8_are_named(data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        for codec in (small(), small(clean=True)):
            with pytest.raises(TokenizationError, match=f"byte {error.start}, "):
                codec.encode_bytes(data, num_threads=1)
    else:
        assert small().encode_bytes(data).tolist() == small().encode(text)


def test_lone_surrogate_is_named_with_its_place() -> None:
    with pytest.raises(TokenizationError, match=r"U\+D83D, at character 1"):
        small().encode("a\ud83d")


@given(SMALL_TEXT, st.sampled_from([0.1, 0.5, 1.0]), st.integers(0, 2**64))
def test_dropout_draws_alike_in_kernel_and_twin(text: str, dropout: float, seed: int) -> None:
    for codec in (small(), published()):
        expected = twin(codec).encode(text, dropout=dropout, seed=seed)
        assert codec.encode(text, dropout=dropout, seed=seed) == expected


def test_dropout_leaves_the_best_piece_with_its_probability() -> None:
    codec = small()
    text = "です\n" * 5000
    best, other = codec.encode("です"), codec.encode("で")
    assert best != other
    ids = codec.encode_to_numpy("です\n" * 20_000, dropout=0.25, seed=3)
    left = 1 - np.count_nonzero(ids == best[0]) / 20_000
    assert 0.24 < left < 0.26
    assert codec.decode(codec.encode(text, dropout=0.5, seed=1)) == text
    assert np.array_equal(codec.encode(text, dropout=0.0), codec.encode(text))
    assert not np.array_equal(codec.encode(text, dropout=0.5), codec.encode(text, dropout=0.5))


@pytest.mark.parametrize("dropout", [-0.1, 1.1, float("nan")])
def test_dropout_that_is_no_probability_is_named(dropout: float) -> None:
    with pytest.raises(TokenizationError, match="dropout is"):
        small().encode("です", dropout=dropout)


def test_sixteen_threads_may_share_a_codec() -> None:
    codec = Codec(small().vocabulary, jit_threshold=0)
    calls = 200 if numba.config.DISABLE_JIT else 50_000
    texts = [f"猫ですか{number}🇦🇺🇸\n<BR>" * (number % 7) for number in range(50)]
    expected = [small().encode(text) for text in texts]

    def call(number: int) -> bool:
        return codec.encode(texts[number % 50]) == expected[number % 50]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(call, range(calls), chunksize=100))


def test_real_prose_is_the_same_from_kernel_and_twin(corpus_directory: object) -> None:
    from gpt_neox_japanese.corpus import read_documents

    file = SHARED / "corpus" / "aozora-04.jsonl.zst"
    text = "\n".join(work.text for work in islice(read_documents([file]), 8))
    assert_twins_agree(published(), text[: 5_000 if numba.config.DISABLE_JIT else 200_000])


def test_every_byte_has_the_unknown_id_where_its_token_is_missing() -> None:
    tags = [tag for tag in TAGS if not tag.startswith("<|byte")]
    vocabulary = Vocabulary(tuple((tag,) for tag in tags), {}, {})
    codec = Codec(vocabulary, unknown="<BLOCK>", jit_threshold=0)
    assert codec.encode("é") == [tags.index("<BLOCK>")] * 2
