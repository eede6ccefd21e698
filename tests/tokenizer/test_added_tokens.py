from __future__ import annotations

import copy
import json
import pickle
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken as TheirToken
from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseTokenizer as InTreeTokenizer

from gpt_neox_japanese import GPTNeoXJapaneseTokenizer
from gpt_neox_japanese.errors import CheckpointError, TokenizationError, VocabularyError
from gpt_neox_japanese.tokenizer.added_tokens import AddedToken, TokenFinder
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.tokenizer.model_check import check_model
from gpt_neox_japanese.tokenizer.special_tokens import NO_TOKENS, AllowedSpecial
from tests.tokenizer.small import vocabulary

PIECES = ["吾輩", "猫", "は", "。", "慶応,慶應", ",", "吾", "輩"]
SIZE = len(vocabulary(PIECES))

CONTENTS = [
    *("foo", "foobar", "ba", "aab", "aaab", "a", "<|user|>", "<|user", "[PAD]", "<|endoftext|>x"),
    *("猫", "猫は", "慶應", "彁", "彁 彁", " 吾", "\n\n", "<SP>", "🐯", "한", "<|endoftext|>"),
]
TEXTS = st.lists(
    st.sampled_from(
        [*CONTENTS, " ", "\u3000", "\n", "\r\n", "b", "吾輩", "。", "😀", ">", "_", "1"]
    )
    | st.text(max_size=3),
    max_size=12,
).map("".join)
TOKENS = st.builds(
    TheirToken,
    st.sampled_from(CONTENTS),
    special=st.booleans(),
    lstrip=st.booleans(),
    rstrip=st.booleans(),
    single_word=st.booleans(),
    normalized=st.booleans(),
)
MANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A tokenizer's directory without added tokens."""
    Codec(vocabulary(PIECES)).save(tmp_path)
    return tmp_path


def say(directory: Path, name: str = "tokenizer_config.json", **values: object) -> Path:
    """Write a file of a tokenizer's directory."""
    (directory / name).write_text(json.dumps(values), encoding="utf-8")
    return directory


def decoder_of(*tokens: AddedToken, start: int = SIZE) -> dict[str, Any]:
    return {str(start + number): token._asdict() for number, token in enumerate(tokens)}


def check_agreement(directory: Path, texts: Sequence[str]) -> Codec:
    """Everything that a codec does with a directory is what our class does with it."""
    codec = Codec.load(directory)
    face = GPTNeoXJapaneseTokenizer.from_pretrained(directory)
    assert len(codec) == len(face)
    assert codec.special_ids >= face._special_ids()
    for i in range(len(codec)):
        assert codec.decode([i]) == face.decode([i])
    for i, token in face.added_tokens_decoder.items():
        assert codec.id_to_token(i) == token.content
    special: tuple[AllowedSpecial, ...] = ("all", NO_TOKENS)
    for allowed in special:
        rows = codec.encode_batch(texts, allowed_special=allowed)
        for text, row in zip(texts, rows, strict=True):
            theirs = face(text, return_offsets_mapping=True, split_special_tokens=not allowed)
            ids = codec.encode(text, allowed_special=allowed)
            assert ids == row == theirs["input_ids"]
            array = codec.encode_to_numpy(text, allowed_special=allowed)
            assert (array.dtype, array.tolist()) == (np.int32, ids)
            assert codec.encode_bytes(text.encode(), allowed_special=allowed).tolist() == row
            encoding = codec.encode_with_offsets(text, allowed_special=allowed)
            assert encoding.ids.tolist() == row
            assert list(map(tuple, encoding.offsets.tolist())) == theirs["offset_mapping"]
            assert codec.decode(row) == face.decode(row)
            stream = codec.stream_decoder()
            assert "".join(map(stream.feed, row)) + stream.finish() == codec.decode(row)
    return codec


# ---- The same ids and text as the class of transformers ------------------------------------------


@MANY
@given(st.lists(TOKENS, max_size=6), st.lists(TEXTS, min_size=1, max_size=4))
def test_ids_text_and_offsets_are_those_of_the_class(
    tmp_path: Path, tokens: list[TheirToken], texts: list[str]
) -> None:
    Codec(vocabulary(PIECES)).save(tmp_path)
    face = GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path)
    for token in tokens:
        face.add_tokens([token], special_tokens=token.special)
    face.save_pretrained(tmp_path)
    check_agreement(tmp_path, texts)


TEXT = "猫 foo\n猫foobar <|user|> は<|user|>[PAD]<|endoftext|>慶應,foo。"


def test_named_tokens_without_an_id_get_those_that_the_class_gives(files: Path) -> None:
    say(
        files,
        pad_token={"__type": "AddedToken", "content": "[PAD]", "lstrip": True},
        sep_token="foo",
        image_token="<|user|>",
        extra_special_tokens=["<|b|>", {"__type": "AddedToken", "content": "<|c|>"}, "猫"],
    )
    codec = check_agreement(files, [TEXT, "<|c|><|b|>"])
    assert len(codec) == SIZE + 5


def test_additional_special_tokens_are_extra_ones(files: Path) -> None:
    say(files, additional_special_tokens=["<|user|>"], extra_special_tokens=[])
    check_agreement(files, [TEXT])


def test_extra_special_tokens_may_have_names(files: Path) -> None:
    say(files, extra_special_tokens={"user": "<|user|>", "foo_token": "foo"})
    assert len(check_agreement(files, [TEXT])) == SIZE + 2


def test_files_of_earlier_versions_are_read(files: Path) -> None:
    say(files, "added_tokens.json", **{"<|user|>": SIZE + 1, "foo": SIZE})
    say(files, "special_tokens_map.json", pad_token={"content": "<|user|>"}, bos_token="[PAD]")
    codec = check_agreement(files, [TEXT])
    assert codec.special_ids >= {SIZE + 1, SIZE + 2}
    assert SIZE in codec.encode(TEXT)


@pytest.mark.parametrize("legacy_files", [False, True])
def test_directories_that_transformers_saved_are_read_as_the_class_reads_them(
    files: Path, legacy_files: bool
) -> None:
    theirs = InTreeTokenizer(str(files / "vocab.txt"), str(files / "emoji.json"))
    theirs.add_tokens(["foo", TheirToken("bar", lstrip=True)])
    theirs.add_special_tokens({"pad_token": "[PAD]", "extra_special_tokens": ["<|user|>"]})
    theirs.save_pretrained(files / "saved")
    if legacy_files:
        assert (files / "saved" / "added_tokens.json").is_file()
        config = json.loads((files / "saved" / "tokenizer_config.json").read_text())
        del config["added_tokens_decoder"]
        say(files / "saved", **config)
    check_agreement(files / "saved", [TEXT])


def test_unknown_token_is_the_one_that_the_directory_names(tmp_path: Path) -> None:
    lines = vocabulary(PIECES).surfaces
    few = [forms for forms in lines if forms[0] != "<|byte237|>"]
    Codec(replace(vocabulary(PIECES), surfaces=tuple(few))).save(tmp_path)
    say(tmp_path, unk_token="<|nottoken|>")
    codec = Codec.load(tmp_path)
    assert "<|nottoken|>" in map(codec.id_to_token, codec.encode("한"))


# ---- Words and marks -----------------------------------------------------------------------------


def test_words_are_found_in_every_text_and_marks_only_where_tags_are_allowed(files: Path) -> None:
    word, mark = AddedToken("彁"), AddedToken("<|user|>", special=True)
    codec = Codec.load(say(files, added_tokens_decoder=decoder_of(word, mark)))
    text = "猫彁<|user|>猫"
    assert [i for i in codec.encode(text) if i >= SIZE] == [SIZE]
    assert codec.decode(codec.encode(text)) == text
    assert codec.encode(text, allowed_special="all") == [1, SIZE, SIZE + 1, 1]
    marks = {codec.token_to_id(tag) for tag in ("<|startoftext|>", "<|endoftext|>", "<|user|>")}
    assert codec.special_ids == marks


def test_text_without_added_tokens_takes_the_path_of_a_vocabulary_without_them(
    files: Path,
) -> None:
    plain = Codec.load(files)
    codec = Codec.load(say(files, added_tokens_decoder=decoder_of(AddedToken("彁彁"))))
    for text in ("", "彁", "吾輩は猫", "吾輩は\r\n猫\t😀" * 5000):
        assert codec.encode(text) == plain.encode(text)
        assert codec.encode(text, dropout=0.5, seed=3) == (plain.encode(text, dropout=0.5, seed=3))


def test_dropout_between_added_tokens_is_repeatable_and_keeps_the_text(files: Path) -> None:
    codec = Codec.load(say(files, added_tokens_decoder=decoder_of(AddedToken("彁"))))
    text = "吾輩は猫。彁" * 20
    cut = codec.encode(text, dropout=0.5, seed=1)
    assert cut == codec.encode(text, dropout=0.5, seed=1)
    assert cut != codec.encode(text)
    assert codec.decode(cut) == text
    assert cut.count(SIZE) == 20


def test_mapped_text_is_cut_at_added_tokens_in_every_thread(files: Path) -> None:
    codec = Codec.load(say(files, added_tokens_decoder=decoder_of(AddedToken("彁"))))
    text = "吾輩は猫彁。\n" * 100_000
    ids = codec.encode_bytes(text.encode(), num_threads=2)
    assert np.array_equal(ids, codec.encode(text))
    with pytest.raises(TokenizationError, match="byte 1900000, 0xff"):
        codec.encode_bytes(text.encode() + b"\xff")


def test_place_of_a_lone_surrogate_is_counted_from_the_beginning_of_the_text(
    files: Path,
) -> None:
    codec = Codec.load(say(files, added_tokens_decoder=decoder_of(AddedToken("彁"))))
    with pytest.raises(TokenizationError, match="character 3"):
        codec.encode("猫彁猫\ud800")


def test_fingerprint_changes_with_added_tokens_and_not_with_named_ones(files: Path) -> None:
    plain = Codec.load(files).fingerprint
    assert plain == Codec.load(files).vocabulary.fingerprint
    GPTNeoXJapaneseTokenizer.from_pretrained(files).save_pretrained(files)
    assert Codec.load(files).fingerprint == plain
    prints = {plain}
    for token in (AddedToken("彁"), AddedToken("弌"), AddedToken("彁", special=True)):
        prints.add(Codec.load(say(files, added_tokens_decoder=decoder_of(token))).fingerprint)
    say(files, added_tokens_decoder=decoder_of(AddedToken("猫"), start=1))
    assert len(prints | {Codec.load(files).fingerprint}) == 5


def test_what_a_codec_saves_it_reads_again(files: Path) -> None:
    tokens = (AddedToken("彁", lstrip=True), AddedToken("<|user|>", special=True, rstrip=True))
    codec = Codec.load(say(files, added_tokens_decoder=decoder_of(*tokens)))
    codec.save(files / "again")
    again = check_agreement(files / "again", ["猫 彁 <|user|> 猫"])
    for twin in (again, pickle.loads(pickle.dumps(codec)), copy.deepcopy(codec)):
        assert twin.fingerprint == codec.fingerprint
        assert twin.encode("猫 彁") == [1, SIZE]


def test_form_whose_id_an_added_token_took_is_found_no_more(files: Path) -> None:
    token = AddedToken("彁")
    codec = Codec.load(say(files, added_tokens_decoder=decoder_of(token, start=SIZE - 2)))
    assert codec.token_to_id("<|nottoken|>") is None
    assert codec.token_to_id("彁") == SIZE - 2
    assert codec.token_to_id("<|endoftext|>") == SIZE - 1
    assert codec.token_to_id("nowhere") is None
    assert codec.decode([SIZE - 2]) == "彁"


def test_id_that_was_skipped_is_an_error(files: Path) -> None:
    codec = Codec.load(
        say(files, added_tokens_decoder=decoder_of(AddedToken("彁"), start=SIZE + 2))
    )
    assert codec.decode([SIZE + 2]) == "彁"
    for ids in ([SIZE + 1], [1, SIZE, 1]):
        with pytest.raises(TokenizationError, match="has no token"):
            codec.decode(ids)
    with pytest.raises(TokenizationError, match=f"0 to {SIZE + 2}"):
        codec.decode([SIZE + 3])


# ---- Broken files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"added_tokens_decoder": []}, "must map ids to tokens"),
        ({"added_tokens_decoder": {"x": {"content": "a"}}}, "'x' is no id"),
        ({"added_tokens_decoder": {"-1": {"content": "a"}}}, "'-1' is no id"),
        ({"added_tokens_decoder": {"9" * 5000: {"content": "a"}}}, "too far"),
        ({"added_tokens_decoder": {"2000000000": {"content": "a"}}}, "too far"),
        ({"added_tokens_decoder": {"1": "a", "2": 5}}, r"added_tokens_decoder\['2'\] is 5"),
        ({"added_tokens_decoder": {"1": {"content": None}}}, "an object with 'content'"),
        ({"added_tokens_decoder": {"1": {"content": "a", "lstrip": 1}}}, "'lstrip' must be true"),
        ({"added_tokens_decoder": {"1": {"content": "\ud800"}}}, "surrogate"),
        ({"pad_token": 5}, "pad_token is 5"),
        ({"unk_token": []}, "unk_token is"),
        ({"unk_token": 7}, "unk_token is 7"),
        ({"extra_special_tokens": "a"}, "must be a list"),
        ({"extra_special_tokens": [None]}, "an extra special token is None"),
        ({"legacy": "yes"}, "'legacy' must be true or false"),
    ],
)
def test_broken_configurations_are_named(
    files: Path, config: dict[str, object], message: str
) -> None:
    with pytest.raises(VocabularyError, match=message):
        Codec.load(say(files, **config))


@pytest.mark.parametrize("name", ["added_tokens.json", "special_tokens_map.json"])
@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000, '{"a": "b", "pad_token": 7}'])
def test_broken_files_of_earlier_versions_are_named(files: Path, name: str, content: str) -> None:
    (files / name).write_text(content)
    (files / "tokenizer_config.json").unlink()
    with pytest.raises(VocabularyError, match=re.escape(name)):
        Codec.load(files)


# ---- A model's rows ------------------------------------------------------------------------------


def test_rows_beyond_the_last_id_are_padding(files: Path) -> None:
    word, mark = AddedToken("彁"), AddedToken("<|user|>", special=True)
    codec = Codec.load(say(files, added_tokens_decoder=decoder_of(word, mark)))
    count: Callable[..., int] = lambda **config: check_model(codec, config, files)  # noqa: E731
    assert count(vocab_size=SIZE + 64) == count(vocab_size=SIZE + 2) == SIZE + 2
    assert count(vocab_size=SIZE + 1) == SIZE + 1  # no text becomes the mark that it lacks
    with pytest.raises(CheckpointError, match=rf"'彁' has id {SIZE}; call resize.*\({SIZE + 2}\)"):
        count(vocab_size=SIZE)
    with pytest.raises(CheckpointError, match=r"ids, its vocabulary .* put the vocab\.txt"):
        count(vocab_size=SIZE - 1)
    with pytest.raises(CheckpointError, match="the model has None ids"):
        count()


def test_rows_of_another_vocabulary_are_no_padding(files: Path) -> None:
    codec = Codec.load(files)
    for end in (SIZE + 50, [3, SIZE]):
        with pytest.raises(CheckpointError, match="its texts end with id"):
            check_model(codec, {"vocab_size": SIZE + 64, "eos_token_id": end}, files)


def test_ids_without_a_token_are_no_model(files: Path) -> None:
    codec = Codec.load(
        say(files, added_tokens_decoder=decoder_of(AddedToken("彁"), start=SIZE + 2))
    )
    with pytest.raises(CheckpointError, match=f"id {SIZE} has no token"):
        check_model(codec, {"vocab_size": SIZE + 64}, files)


# ---- Finding them --------------------------------------------------------------------------------


@given(
    st.sets(st.text("abc", min_size=1, max_size=5), max_size=8),
    st.text("abcd", max_size=40),
)
def test_leftmost_and_of_those_longest_token_is_taken(contents: set[str], text: str) -> None:
    finder = TokenFinder({c: (number, AddedToken(c)) for number, c in enumerate(contents)})
    found = [text[s.start : s.end] for s in finder.split(text) if s.id is not None]
    longest_first = sorted(contents, key=len, reverse=True)
    assert found == (re.findall("|".join(longest_first), text) if contents else [])


def test_hostile_tokens_and_texts_take_linear_time() -> None:
    finder = TokenFinder({c: (1, AddedToken(c)) for c in ("a" * 5000 + "b", "a", "ba")})
    segments = finder.split("a" * 300_000)
    assert len(segments) == 300_000  # a search that looks ahead would take 1.5 billion steps
