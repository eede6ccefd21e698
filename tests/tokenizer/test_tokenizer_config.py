"""The JSON files of a tokenizer: what they name is obeyed, and what is saved is read again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpt_neox_japanese import GPTNeoXJapaneseTokenizer
from gpt_neox_japanese.errors import TokenizationError, VocabularyError
from gpt_neox_japanese.tokenization.encode_corpus import CorpusSource, corpus_fingerprint
from gpt_neox_japanese.tokenizer.added_tokens import AddedToken, AddedTokens
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary
from tests.tokenizer.small import vocabulary

PIECES = ["吾輩", "猫", "は", "慶応,慶應", "<unk>"]
SIZE = len(vocabulary(PIECES))
START, SEPARATOR, NOT_TOKEN, END = range(SIZE - 4, SIZE)
TEXT = "猫 한 <unk> は<|separator|> 猫<|nottoken|> word <|im_end|> </s> 慶應<|endoftext|> 한"


def token(content: str, **flags: bool) -> dict[str, Any]:
    return {"__type": "AddedToken", "content": content, **flags}


def with_forms(**forms: str) -> Vocabulary:
    """The small vocabulary; of the byte 237, which 한 needs, or of any other tag, other forms."""
    lines = [tuple(forms.get(form.strip("<|>"), form) for form in line) for line in SURFACES]
    return replace(vocabulary(PIECES), surfaces=tuple(lines))


SURFACES = vocabulary(PIECES).surfaces
NO_BYTE = {"byte237": "nothing"}


def write(directory: Path, files: dict[str, Any], forms: dict[str, str]) -> Path:
    with_forms(**forms).save(directory)
    for name, values in files.items():
        (directory / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    return directory


@pytest.mark.parametrize("forms", [{}, NO_BYTE], ids=["all bytes", "a byte is missing"])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"unk_token": "<unk>"},
        {"unk_token": "慶應"},
        {"unk_token": token("\n", rstrip=True), "pad_token": "<0xE3>", "image_token": " "},
        {"unk_token": "<new>"},
        {"unk_token": token("<new>", rstrip=True), "pad_token": None, "eos_token": "</s>"},
        {"added_tokens_decoder": {str(SIZE): token("<unk>")}, "unk_token": "<unk>"},
        {"added_tokens_decoder": {str(SEPARATOR): token("<|separator|>", special=True)}},
        {
            "added_tokens_decoder": {
                str(SEPARATOR): token("<|separator|>", special=True, rstrip=True),
                str(SIZE): token("word", lstrip=True, single_word=True),
                str(SIZE + 2): token("<|im_end|>", special=True),
            },
            "eos_token": "<|im_end|>",
        },
        {"added_tokens_decoder": {str(END): token("</s>", special=True)}, "pad_token": "</s>"}
        | {"unk_token": "</s>", "eos_token": "</s>"},
        {"sep_token": "<|separator|>", "cls_token": token("<|nottoken|>", lstrip=True)},
        {"extra_special_tokens": ["<|separator|>", token("word", special=True)]},
    ],
)
def test_what_a_codec_saves_gives_the_same_codec_and_the_class_agrees(
    tmp_path: Path, config: dict[str, Any], forms: dict[str, str]
) -> None:
    before = Codec.load(write(tmp_path / "files", {"tokenizer_config": config}, forms))
    before.save(tmp_path / "saved")
    after = Codec.load(tmp_path / "saved")
    assert after.fingerprint == before.fingerprint
    assert after.special_ids == before.special_ids
    assert after.unknown_id == before.unknown_id
    assert after.special_tokens_set == before.special_tokens_set
    face = GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path / "saved")
    source = GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path / "files")
    named = [f"{name}_id" for name in source.special_tokens_map]
    assert [getattr(face, name) for name in named] == [getattr(source, name) for name in named]
    assert face.special_tokens_map.keys() == source.special_tokens_map.keys()
    assert face._special_ids() == source._special_ids() == before.special_ids
    ids = before.encode(TEXT, allowed_special="all")
    assert after.encode(TEXT, allowed_special="all") == ids
    assert source(TEXT)["input_ids"] == face(TEXT)["input_ids"] == ids
    assert after.encode(TEXT) == before.encode(TEXT)
    after.save(tmp_path / "again")
    config_file = "tokenizer_config.json"
    assert (tmp_path / "again" / config_file).read_text("utf-8") == (
        tmp_path / "saved" / config_file
    ).read_text("utf-8")


def test_a_vocabulary_without_the_default_tokens_is_saved_as_it_was(tmp_path: Path) -> None:
    config = {"unk_token": None, "eos_token": "</s>", "pad_token": "</s>"}
    forms = {"endoftext": "</s>"}
    codec = Codec.load(write(tmp_path / "files", {"tokenizer_config": config}, forms))
    codec.save(tmp_path / "saved")
    again = Codec.load(tmp_path / "saved")
    assert len(again) == len(codec) == SIZE
    assert len(GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path / "saved")) == SIZE


def test_an_unknown_token_in_special_tokens_map_is_read(tmp_path: Path) -> None:
    files = {"special_tokens_map": {"unk_token": "<unk>"}, "tokenizer_config": {"legacy": False}}
    codec = Codec.load(write(tmp_path, files, NO_BYTE))
    face = GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path)
    assert codec.unknown_id == face.unk_token_id == PIECES.index("<unk>")
    assert codec.encode("한") == face("한")["input_ids"]


@pytest.mark.parametrize("unknown", ["<unk>", 1, None])
def test_the_unknown_token_that_was_given_is_saved(tmp_path: Path, unknown: str | int) -> None:
    forms = {} if unknown is None else NO_BYTE
    codec = Codec(with_forms(**forms), unknown=unknown)
    codec.save(tmp_path)
    assert Codec.load(tmp_path).unknown_id == codec.unknown_id
    assert Codec.load(tmp_path).encode("猫한") == codec.encode("猫한")


def test_an_unknown_token_that_was_taken_away_cannot_be_saved(tmp_path: Path) -> None:
    codec = Codec(vocabulary(PIECES), unknown="w", added=AddedTokens({SIZE: AddedToken("w")}))
    with pytest.raises(TokenizationError, match=f"id {SIZE} is outside"):
        codec.with_added(AddedTokens({})).save(tmp_path)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("taken", [START, END])
def test_a_codec_whose_added_token_took_the_id_of_a_default_is_saved_as_it_is(
    tmp_path: Path, taken: int, special: bool
) -> None:
    added = AddedTokens({taken: AddedToken("</s>", special=special)})
    before = Codec(vocabulary(PIECES), added=added)
    before.save(tmp_path)
    after = Codec.load(tmp_path)
    assert after.fingerprint == before.fingerprint
    assert after.special_tokens_set == before.special_tokens_set
    ids = before.encode(TEXT, allowed_special="all")
    assert after.encode(TEXT, allowed_special="all") == ids
    assert GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path)(TEXT)["input_ids"] == ids


def test_corpora_with_other_unknown_ids_have_other_fingerprints(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("한", encoding="utf-8")
    source = CorpusSource.find([tmp_path / "corpus.txt"])
    codecs = [Codec(with_forms(**NO_BYTE), unknown=name) for name in ("<unk>", "<|endoftext|>")]
    first, second = (corpus_fingerprint(source, codec) for codec in codecs)
    assert first != second
    assert first == corpus_fingerprint(source, codecs[0])


@pytest.mark.parametrize(
    ("config", "named", "token_id"),
    [
        ({"sep_token": "<|separator|>", "eos_token": "<|im_end|>"}, "<|separator|>", SEPARATOR),
        ({"extra_special_tokens": ["<|separator|>", "<|im_end|>"]}, "<|separator|>", SEPARATOR),
        ({"bos_token": "<|startoftext|>"}, "<|startoftext|>", START),
        ({}, "<|endoftext|>", END),  # nobody names it, but it is the default of three names
    ],
)
def test_a_named_token_whose_id_another_one_took_is_refused(
    tmp_path: Path, config: dict[str, Any], named: str, token_id: int
) -> None:
    decoder = {str(token_id): token("<|im_end|>", special=True)}
    write(tmp_path, {"tokenizer_config": {**config, "added_tokens_decoder": decoder}}, {})
    message = f"'{named}' has id {token_id}, which the added token '<|im_end|>' took".replace(
        "|", r"\|"
    )
    with pytest.raises(VocabularyError, match=message):
        Codec.load(tmp_path)
    with pytest.raises(VocabularyError, match=message):
        GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path)


def test_a_renamed_entry_that_no_name_asks_for_is_obeyed(tmp_path: Path) -> None:
    decoder = {str(SEPARATOR): token("<|im_end|>", special=True)}
    config = {"added_tokens_decoder": decoder, "eos_token": "<|im_end|>"}
    codec = Codec.load(write(tmp_path, {"tokenizer_config": config}, {}))
    face = GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path)
    assert face.eos_token_id == codec.token_to_id("<|im_end|>") == SEPARATOR
    with pytest.raises(VocabularyError, match="took"):
        face.add_tokens(["<|separator|>"])
