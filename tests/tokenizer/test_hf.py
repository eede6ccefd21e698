"""The face: what transformers' users call."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from gpt_neox_japanese import GPTNeoXJapaneseTokenizer
from gpt_neox_japanese.errors import TokenizationError, VocabularyError
from tests.tokenizer.small import vocabulary
from tests.tokenizer.test_reference import DOCUMENTED, DOCUMENTED_IDS

PIECES = ["吾輩", "猫", "は", "慶応,慶應", "ー", "い,ゐ", "ゐ"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    vocabulary(PIECES).save(tmp_path)
    return tmp_path


@pytest.fixture
def tokenizer(files: Path) -> GPTNeoXJapaneseTokenizer:
    return GPTNeoXJapaneseTokenizer(str(files / "vocab.txt"), str(files / "emoji.json"))


@pytest.fixture(scope="session")
def published(reference_directory: Path) -> GPTNeoXJapaneseTokenizer:
    return GPTNeoXJapaneseTokenizer(
        vocab_file=str(reference_directory / "vocab.txt"),
        emoji_file=str(reference_directory / "emoji.json"),
    )


def test_documented_example(published: GPTNeoXJapaneseTokenizer) -> None:
    assert published(DOCUMENTED)["input_ids"] == DOCUMENTED_IDS
    assert published.decode(DOCUMENTED_IDS) == "吾輩は猫である🐯。実は慶応(慶応)大学出身"


def test_published_vocabulary_has_a_name_for_each_of_its_32000_ids(
    published: GPTNeoXJapaneseTokenizer,
) -> None:
    vocab = published.get_vocab()
    assert len(published) == published.vocab_size == len(vocab) == 32000
    assert published.convert_tokens_to_ids(list(vocab)) == list(vocab.values())
    assert published.convert_ids_to_tokens(list(vocab.values())) == list(vocab)


def test_ids_equal_those_of_transformers(published: GPTNeoXJapaneseTokenizer) -> None:
    from tests.tokenizer.test_reference import oracle

    texts = ["<|endoftext|>猫<|startoftext|> は\n", "<BR><|byte65|>🐯(^_^)", "", "한국어"]
    assert published(texts)["input_ids"] == oracle()(texts)["input_ids"]  # type: ignore[operator]
    assert [published.tokenize(text) for text in texts] == [
        oracle().tokenize(text)  # type: ignore[attr-defined]
        for text in texts
    ]


@pytest.mark.parametrize(
    "text", ["お電話は03-1234-5678、http://a.jp/ へ。\u3000価格は1,200円(税込)", "平成5年3月7日"]
)
def test_cleaning_gives_the_ids_of_transformers(reference_directory: Path, text: str) -> None:
    from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseTokenizer as InTree

    files = [str(reference_directory / name) for name in ("vocab.txt", "emoji.json")]
    ours = GPTNeoXJapaneseTokenizer(*files, do_clean_text=True)
    assert ours(text)["input_ids"] == InTree(*files, do_clean_text=True)(text)["input_ids"]
    assert ours(text)["input_ids"] != GPTNeoXJapaneseTokenizer(*files)(text)["input_ids"]


def test_batches_are_padded_and_cut(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    batch = tokenizer(
        ["吾輩は猫", "猫"], padding=True, truncation=True, max_length=2, return_tensors="pt"
    )
    pad = tokenizer.pad_token_id
    assert batch["input_ids"].tolist() == [[0, 2], [1, pad]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]
    tokenizer.padding_side = "left"
    assert tokenizer(["吾輩は", "猫"], padding=True)["input_ids"] == [[0, 2], [pad, 1]]


def test_whitespace_and_bytes_survive(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    text = "  猫は\n\t한 ñ "
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.convert_tokens_to_string(tokenizer.tokenize(text)) == text


def test_special_tokens_can_be_skipped(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    ids = [tokenizer.bos_token_id, 1, tokenizer.eos_token_id]
    assert tokenizer.batch_decode([ids, ids[1:]], skip_special_tokens=True) == ["猫", "猫"]
    assert tokenizer.decode(ids) == "<|startoftext|>猫<|endoftext|>"


def test_tokens_show_the_form_that_was_written(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    assert tokenizer.tokenize("慶應慶応") == ["慶應", "慶応"]
    assert tokenizer.convert_tokens_to_ids(["慶應", "慶応"]) == [3, 3]


def test_spelled_out_tags_can_be_read_as_text(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    text = "<|endoftext|><BR><|byte65|>"
    assert tokenizer(text)["input_ids"] == tokenizer.convert_tokens_to_ids(
        ["<|endoftext|>", "<BR>", "<|byte65|>"]
    )
    ids = tokenizer(text, split_special_tokens=True)["input_ids"]
    controls = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<BR>"])
    assert not set(controls) & set(ids)
    assert tokenizer.decode(ids) == text


def test_added_tokens_come_after_the_last_id_and_survive_saving(
    tokenizer: GPTNeoXJapaneseTokenizer, tmp_path: Path
) -> None:
    size = len(tokenizer)
    assert tokenizer.add_tokens(["ほげ"]) == 1
    assert tokenizer("猫ほげ")["input_ids"] == [1, size]
    assert tokenizer.decode([1, size]) == "猫ほげ"
    tokenizer.save_pretrained(tmp_path / "saved")
    loaded = GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path / "saved")
    assert loaded("猫ほげ")["input_ids"] == [1, size]
    assert len(loaded) == size + 1


def test_options_survive_saving(files: Path, tmp_path: Path) -> None:
    names = [str(files / name) for name in ("vocab.txt", "emoji.json")]
    GPTNeoXJapaneseTokenizer(
        *names, unk_token="<|nottoken|>", do_clean_text=True, legacy=False, model_max_length=7
    ).save_pretrained(tmp_path / "saved")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert type(loaded) is GPTNeoXJapaneseTokenizer
    assert (loaded.unk_token, loaded.do_clean_text, loaded.legacy) == ("<|nottoken|>", True, False)
    assert loaded.model_max_length == 7
    assert loaded.codec.clean
    assert not loaded.codec.legacy


def test_auto_tokenizer_finds_ours_by_model_type(files: Path) -> None:
    (files / "config.json").write_text(json.dumps({"model_type": "gpt_neox_japanese"}))
    assert type(AutoTokenizer.from_pretrained(files)) is GPTNeoXJapaneseTokenizer


def test_codec_reads_what_the_face_saves(
    tokenizer: GPTNeoXJapaneseTokenizer, tmp_path: Path
) -> None:
    from gpt_neox_japanese import Codec

    tokenizer.save_pretrained(tmp_path / "saved")
    codec = Codec.load(tmp_path / "saved")
    assert codec.vocabulary == tokenizer.codec.vocabulary
    assert codec.legacy


def test_copies_and_pickles_behave_alike(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    for twin in (
        pickle.loads(pickle.dumps(tokenizer)),
        copy.copy(tokenizer),
        copy.deepcopy(tokenizer),
    ):
        assert twin("吾輩は 猫")["input_ids"] == tokenizer("吾輩は 猫")["input_ids"]


def test_token_that_does_not_exist_is_unknown(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    assert tokenizer.convert_tokens_to_ids("犬") == tokenizer.unk_token_id


def test_id_that_does_not_exist_is_an_error(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    with pytest.raises(TokenizationError, match="id -1 "):
        tokenizer.decode([-1])


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"vocab\.txt"):
        GPTNeoXJapaneseTokenizer(str(tmp_path / "vocab.txt"), str(tmp_path / "emoji.json"))
