"""Cutting, filling up and aligning rows: what transformers' fast tokenizers do, we do."""

from __future__ import annotations

import pickle
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import BatchEncoding, PreTrainedTokenizerFast

from gpt_neox_japanese import GPTNeoXJapaneseTokenizer
from gpt_neox_japanese.errors import TokenizationError
from tests.tokenizer.small import vocabulary

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> GPTNeoXJapaneseTokenizer:
    directory = tmp_path_factory.mktemp("letters")
    vocabulary([*LETTERS, "猫", "吾輩"]).save(directory)
    return GPTNeoXJapaneseTokenizer.from_pretrained(directory)


@pytest.fixture(scope="module")
def fast(ours: GPTNeoXJapaneseTokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer of the `tokenizers` library that gives letters the same ids."""
    vocab = {letter: i for i, letter in enumerate(LETTERS)}
    vocab[" "] = ours("_ ".removeprefix("_"))["input_ids"][0]
    vocab["<|endoftext|>"] = ours.eos_token_id
    rust = Tokenizer(WordLevel(vocab, unk_token="<|endoftext|>"))
    rust.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=rust, pad_token="<|endoftext|>")


EVERYTHING = {
    "return_offsets_mapping": True,
    "return_special_tokens_mask": True,
    "return_token_type_ids": True,
    "return_attention_mask": True,
}


def both(
    ours: GPTNeoXJapaneseTokenizer, fast: PreTrainedTokenizerFast, *args: Any, **kwargs: Any
) -> tuple[BatchEncoding, BatchEncoding]:
    mine, theirs = ours(*args, **EVERYTHING, **kwargs), fast(*args, **EVERYTHING, **kwargs)
    assert dict(mine) == dict(theirs)
    assert mine.n_sequences == theirs.n_sequences
    for row in range(len(theirs.encodings or [])):
        assert mine.sequence_ids(row) == theirs.sequence_ids(row)
        assert mine.tokens(row) == theirs.tokens(row)
    return mine, theirs


@pytest.mark.parametrize("padding", [False, True, "max_length"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("overflow", [False, True])
def test_texts_are_cut_and_filled_up_as_by_fast_tokenizers(
    ours: GPTNeoXJapaneseTokenizer,
    fast: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    padding: bool | str,
    side: str,
    overflow: bool,
) -> None:
    monkeypatch.setattr(ours, "truncation_side", side)
    monkeypatch.setattr(fast, "truncation_side", side)
    for max_length, stride, padding_side in product([4, 5, 8], [0, 1, 3], ["left", "right"]):
        both(
            ours,
            fast,
            ["abcdefghijk", "ab", "", LETTERS],
            padding=padding,
            truncation=True,
            max_length=max_length,
            stride=stride,
            padding_side=padding_side,
            return_overflowing_tokens=overflow,
        )


@pytest.mark.parametrize("strategy", ["longest_first", "only_first", "only_second"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_pairs_are_cut_as_by_fast_tokenizers(
    ours: GPTNeoXJapaneseTokenizer,
    fast: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    strategy: str,
    side: str,
) -> None:
    monkeypatch.setattr(ours, "truncation_side", side)
    monkeypatch.setattr(fast, "truncation_side", side)
    pairs = [("abcdefg", "hijklmno"), ("abcdefghij", "klmnopq"), ("abcdefgh", "ijklmnop")]
    for pair, overflow, stride in product(pairs, [False, True], [0, 1]):
        both(
            ours,
            fast,
            *pair,
            truncation=strategy,
            max_length=12,
            stride=stride,
            return_overflowing_tokens=overflow,
        )
    both(ours, fast, pairs, padding=True, pad_to_multiple_of=8)
    both(ours, fast, [a for a, _ in pairs], [b for _, b in pairs], padding=True)


@pytest.mark.parametrize("text", ["abc", ["abc", "d"], [], ["ab<|endoftext|>c"], "", [("a", "bc")]])
def test_all_shapes_of_input_give_the_columns_of_fast_tokenizers(
    ours: GPTNeoXJapaneseTokenizer, fast: PreTrainedTokenizerFast, text: Any
) -> None:
    if text == []:
        assert dict(ours(text)) == {"input_ids": [], "attention_mask": []}
    else:
        both(ours, fast, text)


def test_words_keep_their_numbers_and_their_own_offsets(
    ours: GPTNeoXJapaneseTokenizer, fast: PreTrainedTokenizerFast
) -> None:
    mine, theirs = both(ours, fast, ["ab", "c", "", "def"], is_split_into_words=True)
    assert mine.word_ids() == theirs.word_ids() == [0, 0, 1, 3, 3, 3]
    for word in (0, 1, 2, 3):
        assert mine.word_to_tokens(word) == theirs.word_to_tokens(word)
    assert mine.word_to_chars(3) == theirs.word_to_chars(3) == (0, 3)
    assert mine.token_to_word(3) == theirs.token_to_word(3) == 3
    assert mine.char_to_word(1) == theirs.char_to_word(1) == 0
    batch = [["ab", "c"], ["d"]]
    both(ours, fast, batch, is_split_into_words=True, padding=True)
    both(ours, fast, batch, batch[::-1], is_split_into_words=True, padding=True)


def test_tokens_and_characters_find_each_other(ours: GPTNeoXJapaneseTokenizer) -> None:
    encoding = ours(["吾輩한b", "a"], ["c", "猫d"], padding=True, padding_side="left")
    assert encoding.is_fast
    assert [encoding.char_to_token(0, char) for char in range(4)] == [0, 0, 1, 4]
    assert [encoding.token_to_chars(0, token) for token in range(6)] == [
        *[(0, 2), (2, 3), (2, 3), (2, 3), (3, 4), (0, 1)]
    ]
    assert encoding.char_to_token(0, 9) is None
    assert [encoding.token_to_chars(1, token) for token in (2, 3, 4, 5)] == [
        *[None, (0, 1), (0, 1), (1, 2)]
    ]
    assert encoding.char_to_token(1, 0, sequence_index=1) == 4
    assert encoding.sequence_ids(1) == [None, None, None, 0, 1, 1]
    assert encoding.token_to_sequence(0, 5) == 1
    assert encoding.word_ids(0) == [None] * 6
    assert encoding.tokens(1) == ["<|endoftext|>"] * 3 + ["a", "猫", "d"]


def test_alignment_does_not_follow_what_a_caller_does_to_the_ids(
    ours: GPTNeoXJapaneseTokenizer,
) -> None:
    encoding = ours("abc")
    encoding["input_ids"].append(ours.eos_token_id)
    assert encoding.tokens() == ["a", "b", "c"]
    assert encoding.encodings is not None
    assert encoding.encodings[0].ids == [0, 1, 2]


@pytest.mark.parametrize("text", ["", "a猫 c", "ab<|endoftext|>c", "a<BR>①🐯한"])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("mask", [None, False, True])
def test_one_text_is_encoded_like_a_batch_of_one(
    ours: GPTNeoXJapaneseTokenizer, text: str, split: bool, mask: bool | None
) -> None:
    options = {"split_special_tokens": split, "return_attention_mask": mask}
    one, batch = ours(text, **options), ours([text], **options)
    assert dict(one) == {name: column[0] for name, column in batch.items()}
    assert one.n_sequences == batch.n_sequences == 1
    assert one.encodings is not None
    assert batch.encodings is not None
    assert one.encodings[0] == batch.encodings[0]
    assert list(one.encodings) == pickle.loads(pickle.dumps(one)).encodings


def test_batches_survive_pickling_with_their_alignments(ours: GPTNeoXJapaneseTokenizer) -> None:
    encoding = pickle.loads(pickle.dumps(ours(["abc", "d"], return_tensors=None)))
    assert encoding["input_ids"] == [[0, 1, 2], [3]]
    assert encoding.char_to_token(0, 2) == 2
    assert encoding.tokens(1) == ["d"]


@pytest.mark.parametrize("kind", ["np", "pt"])
def test_tensors_have_a_batch_axis(ours: GPTNeoXJapaneseTokenizer, kind: str) -> None:
    one = ours("abc", return_tensors=kind, return_length=True, return_offsets_mapping=True)
    assert one["input_ids"].shape == (1, 3)
    assert one["length"].tolist() == [3]
    assert one["offset_mapping"].tolist() == [[[0, 1], [1, 2], [2, 3]]]
    cut = ours(
        "abcdef",
        return_tensors=kind,
        max_length=3,
        truncation=True,
        return_overflowing_tokens=True,
    )
    assert cut["input_ids"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert cut["overflow_to_sample_mapping"].tolist() == [0, 0]


def test_length_counts_the_tokens_of_a_row(ours: GPTNeoXJapaneseTokenizer) -> None:
    assert ours("abc", return_length=True)["length"] == 3
    assert ours(["abc", "a"], return_length=True)["length"] == [3, 1]


def test_text_target_gives_labels(ours: GPTNeoXJapaneseTokenizer) -> None:
    assert ours("ab", text_target="cd")["labels"] == [2, 3]


def test_too_long_a_text_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.tokenization_utils_base.logger.propagate", True)
    vocabulary(LETTERS).save(tmp_path)
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path, model_max_length=4)
    tokenizer("abcd")
    assert not caplog.messages
    tokenizer(["a", "abcdef"])
    assert "6 > 4" in caplog.text
    assert tokenizer("abcdef", truncation=True)["input_ids"] == [0, 1, 2, 3]
    assert tokenizer("a", padding="max_length")["attention_mask"] == [1, 0, 0, 0]


@pytest.mark.parametrize(
    "text", [5, [None], ["a", 3], [1, 2], [("a", "b", "c")], b"a", ["a", None]]
)
def test_what_is_no_text_is_named(ours: GPTNeoXJapaneseTokenizer, text: Any) -> None:
    with pytest.raises(TokenizationError, match="pass a string"):
        ours(text)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"text": "abc", "max_length": -1, "truncation": True}, "max_length"),
        ({"text": "abc", "max_length": "2", "truncation": True}, "max_length is '2'; it must be"),
        ({"text": "abc", "max_length": 2.0, "padding": "max_length"}, "max_length is 2.0; it"),
        ({"text": "abc", "padding": True, "pad_to_multiple_of": 2.5}, "pad_to_multiple_of is 2.5"),
        ({"text": "abc", "max_length": 2, "stride": 2, "truncation": True}, "stride=2"),
        ({"text": "abc", "max_length": 2, "stride": 0.5, "truncation": True}, "stride is 0.5"),
        ({"text": "abc", "max_length": 2, "truncation": "only_second"}, "only_first"),
        ({"text": "abc", "text_pair": "d", "max_length": 1, "truncation": "only_first"}, "3 of 3"),
        ({"text": ["a", "b"], "text_pair": ["c"]}, "2 texts"),
        ({"text": "a", "text_pair": 3}, "int"),
        ({"text": "a", "max_lenght": 3}, "max_lenght"),
        ({"text": "a\ud800"}, "surrogate"),
        ({"text": "a", "padding": True, "padding_side": "top"}, "'top'"),
    ],
)
def test_impossible_requests_are_explained(
    ours: GPTNeoXJapaneseTokenizer, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(TokenizationError, match=problem):
        ours(**arguments)


@pytest.mark.parametrize("lstrip", [False, True])
@pytest.mark.parametrize("rstrip", [False, True])
@pytest.mark.parametrize("single_word", [False, True])
def test_added_tokens_match_as_in_the_tokenizers_library(
    ours: GPTNeoXJapaneseTokenizer,
    fast: PreTrainedTokenizerFast,
    lstrip: bool,
    rstrip: bool,
    single_word: bool,
) -> None:
    mine = pickle.loads(pickle.dumps(ours))
    theirs = pickle.loads(pickle.dumps(fast))
    flags = {"lstrip": lstrip, "rstrip": rstrip, "single_word": single_word, "normalized": False}
    tokens = [AddedToken(content, **flags) for content in ("xy", "xyz", "qrs")]
    assert mine.add_tokens(tokens) == theirs.add_tokens(tokens) == 3
    for text in product(["", "a", "b ", "  "], ["xy", "qrsxyz", "xy xyz"], ["", "c", " d", "  "]):
        left, right = mine("".join(text), **EVERYTHING), theirs("".join(text), **EVERYTHING)
        assert left.tokens() == [token.strip() or "<SP>" for token in right.tokens()], text
        added = [i for i in left["input_ids"] if i >= ours.vocab_size]
        assert mine.convert_ids_to_tokens(added) == [
            token.strip() for token in right.tokens() if token.strip() in ("xy", "xyz", "qrs")
        ]
