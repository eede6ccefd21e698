"""Special tokens that are set, changed or taken away: a saved tokenizer comes back as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseTokenizer as InTree

from gpt_neox_japanese import Codec, GPTNeoXJapaneseTokenizer
from gpt_neox_japanese.errors import VocabularyError
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary
from tests.tokenizer.small import EMOJI_INV, TAGS, vocabulary

NAMES = [f"{name}_token" for name in ("unk", "pad", "bos", "eos", "sep", "cls", "mask", "image")]
PIECES = ["吾輩", "猫", "は"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    vocabulary(PIECES).save(tmp_path / "files")
    return tmp_path / "files"


def given(files: Path, name: str, token: Any) -> GPTNeoXJapaneseTokenizer:
    return GPTNeoXJapaneseTokenizer(
        files / "vocab.txt",
        files / "emoji.json",
        **{name: token},  # type: ignore[arg-type]
    )


def loaded_with(files: Path, name: str, token: Any) -> GPTNeoXJapaneseTokenizer:
    return GPTNeoXJapaneseTokenizer.from_pretrained(files, **{name: token})


def assigned(files: Path, name: str, token: Any) -> GPTNeoXJapaneseTokenizer:
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(files)
    setattr(tokenizer, name, token)
    return tokenizer


def added(files: Path, name: str, token: Any) -> GPTNeoXJapaneseTokenizer:
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(files)
    tokenizer.add_special_tokens({name: token})
    return tokenizer


def behaviour(tokenizer: Any) -> dict[str, Any]:
    text = "吾輩は<new>猫 <new> <|endoftext|>は"
    ids = tokenizer(text)["input_ids"]
    return {
        "tokens": tokenizer.special_tokens_map,
        "names": {name: getattr(tokenizer, name, None) for name in NAMES},
        "ids": {name: getattr(tokenizer, f"{name}_id", None) for name in NAMES},
        "special ids": set(tokenizer.all_special_ids),
        "added": {i: str(token) for i, token in tokenizer.added_tokens_decoder.items()},
        "encoded": ids,
        "skipped": tokenizer.decode(ids, skip_special_tokens=True),
        "unknown": tokenizer.convert_tokens_to_ids("犬"),
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("token", ["<new>", "<|nottoken|>", "猫", AddedToken("<new>"), None])
@pytest.mark.parametrize("how", [given, loaded_with, assigned, added])
def test_a_saved_special_token_comes_back_here_and_in_transformers(
    files: Path, tmp_path: Path, how: Callable[..., Any], name: str, token: Any
) -> None:
    if how is added and (token is None or name == "image_token"):
        pytest.skip("transformers takes no such value there")
    if how is assigned and name == "image_token":
        pytest.skip("an attribute that transformers does not save")
    before = how(files, name, token)
    before.save_pretrained(tmp_path / "saved")
    after = GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path / "saved")
    assert getattr(after, name, None) == (None if token is None else str(token))
    if how is assigned and token is not None:
        # Naming a token does not add it, here as in transformers; loading does.
        before.add_tokens([str(token)], special_tokens=True)
    assert behaviour(after) == behaviour(before)
    text = "吾輩は<new>猫 <new> <|endoftext|>は"
    codec = Codec.load(tmp_path / "saved")
    assert codec.encode(text, allowed_special="all") == after(text)["input_ids"]
    in_tree = behaviour(InTree.from_pretrained(tmp_path / "saved"))
    ours = behaviour(after)
    for key in ("tokens", "names"):
        assert ours[key] == in_tree[key]


@pytest.mark.parametrize("name", NAMES[:-1])
@pytest.mark.parametrize("tag", ["<BR>", "<SP>", "<|byte227|>", "<|emoji1|>", "猫"])
def test_a_special_token_that_is_named_by_its_id_keeps_it(
    files: Path, tmp_path: Path, name: str, tag: str
) -> None:
    before = GPTNeoXJapaneseTokenizer.from_pretrained(files)
    token_id, size = before.convert_tokens_to_ids(tag), len(before)
    setattr(before, f"{name}_id", token_id)
    before.save_pretrained(tmp_path / "saved")
    codec = Codec.load(tmp_path / "saved")
    codec.save(tmp_path / "by the codec")
    for directory in ("saved", "by the codec"):
        after = GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path / directory)
        assert getattr(after, f"{name}_id") == token_id
        assert len(after) == len(codec) == size
        assert token_id in codec.special_ids
        assert after("猫\n は😀")["input_ids"] == codec.encode("猫\n は😀")


@pytest.mark.parametrize("token", ["<unk>", None])
def test_a_token_in_place_of_the_unknown_one_is_loaded_from_what_transformers_saves(
    files: Path, tmp_path: Path, token: str | None
) -> None:
    InTree.from_pretrained(files, unk_token=token).save_pretrained(tmp_path / "saved")
    loaded = GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path / "saved")
    assert loaded.unk_token == token
    assert loaded("猫は")["input_ids"] == [1, 2]


@pytest.fixture
def files_without_bytes(tmp_path: Path) -> Path:
    tags = [tag for tag in TAGS if "byte" not in tag]
    lines = tuple((form,) for form in (*PIECES, *tags))
    Vocabulary(lines, {}, EMOJI_INV).save(tmp_path / "without bytes")
    return tmp_path / "without bytes"


def test_what_cannot_be_written_as_bytes_has_the_id_of_the_unknown_token_of_now(
    files_without_bytes: Path, tmp_path: Path
) -> None:
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(files_without_bytes)
    size = len(tokenizer)
    assert tokenizer("猫か")["input_ids"] == [1, *[tokenizer.eos_token_id] * 3]
    tokenizer.unk_token = "<|nottoken|>"
    assert tokenizer("猫か")["input_ids"] == [1, *[tokenizer.unk_token_id] * 3]
    tokenizer.add_special_tokens({"unk_token": "<unk>"})
    assert tokenizer("猫か")["input_ids"] == [1, size, size, size]
    tokenizer.save_pretrained(tmp_path / "saved")
    loaded = GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path / "saved")
    assert loaded("猫か")["input_ids"] == [1, size, size, size]
    assert loaded.decode([1, size]) == "猫<unk>"


def test_a_vocabulary_without_bytes_needs_an_unknown_token(files_without_bytes: Path) -> None:
    with pytest.raises(VocabularyError, match=r"no entry '<\|byte0\|>'.*no unknown token"):
        GPTNeoXJapaneseTokenizer.from_pretrained(files_without_bytes, unk_token=None)
    with pytest.raises(VocabularyError, match="no unknown token"):
        Codec(Vocabulary.load(files_without_bytes), unknown=None)


def test_options_that_are_changed_are_heeded_at_once(files: Path) -> None:
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(files)
    assert len(tokenizer("http://a.jp/")["input_ids"]) == 12
    tokenizer.do_clean_text = True
    assert tokenizer.tokenize("http://a.jp/") == ["<URL>"]
