"""The face: what transformers' users call."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from tokenizers import AddedToken
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast
from transformers.generation.stopping_criteria import StopStringCriteria

from gpt_neox_japanese import Codec, GPTNeoXJapaneseTokenizer, default_model_directory
from gpt_neox_japanese.errors import TokenizationError, VocabularyError
from tests.tokenizer.encoding.test_python_encoder import DOCUMENTED, DOCUMENTED_IDS
from tests.tokenizer.small import vocabulary

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
    from tests.tokenizer.encoding.test_python_encoder import oracle

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


def test_added_tokens_keep_their_flags_ids_and_offsets_through_saving_and_pickling(
    tokenizer: GPTNeoXJapaneseTokenizer, tmp_path: Path
) -> None:
    size = len(tokenizer)
    tokenizer.add_tokens([AddedToken("foo", lstrip=True, rstrip=True), AddedToken("ほげ")])
    tokenizer.add_special_tokens(
        {"pad_token": "[PAD]", "extra_special_tokens": [AddedToken("<|user|>", single_word=True)]}
    )
    tokenizer.save_pretrained(tmp_path / "saved")
    text = "猫 foo\n猫ほげ <|user|> は<|user|>"
    for twin in (
        tokenizer,
        GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path / "saved"),
        AutoTokenizer.from_pretrained(tmp_path / "saved"),
        pickle.loads(pickle.dumps(tokenizer)),
        copy.deepcopy(tokenizer),
    ):
        assert len(twin) == size + 4
        assert twin.vocab_size == size
        assert twin.pad_token_id == size + 2
        encoding = twin(text, return_offsets_mapping=True)
        assert encoding["input_ids"][:4] == [1, size, 1, size + 1]
        assert encoding["input_ids"].count(size + 3) == 1
        assert encoding["offset_mapping"][:4] == [(0, 1), (1, 6), (6, 7), (7, 9)]
        assert twin.decode([size + 3, 1, size + 2, size], skip_special_tokens=True) == "猫foo"
        assert twin.convert_ids_to_tokens(size + 3) == "<|user|>"
        assert twin.get_vocab()["[PAD]"] == size + 2
        assert twin.added_tokens_decoder[size] == AddedToken("foo", lstrip=True, rstrip=True)
        assert twin.all_special_tokens[-1] == "<|user|>"


def test_tokens_that_another_class_put_on_used_ids_keep_them(files: Path) -> None:
    # transformers' own class gives the first added token the id of <|nottoken|>.
    size = len(GPTNeoXJapaneseTokenizer.from_pretrained(files))
    config = {"added_tokens_decoder": {str(size - 2): {"content": "ほげ", "special": False}}}
    (files / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = GPTNeoXJapaneseTokenizer.from_pretrained(files)
    assert loaded("猫ほげ")["input_ids"] == [1, size - 2]
    assert loaded.decode([1, size - 2]) == "猫ほげ"
    assert len(loaded) == size
    loaded.add_tokens("ぴよ")
    assert loaded("ぴよ")["input_ids"] == [size]


def test_adding_a_token_to_a_copy_leaves_the_original_alone(
    tokenizer: GPTNeoXJapaneseTokenizer,
) -> None:
    size = len(tokenizer)
    other = copy.copy(tokenizer)
    other.add_tokens(["ほげ"])
    assert (len(tokenizer), len(other)) == (size, size + 1)
    assert size not in tokenizer("ほげ")["input_ids"]
    assert tokenizer.add_tokens(["ぴよ"]) == 1
    assert (tokenizer.decode([size]), other.decode([size])) == ("ぴよ", "ほげ")


def test_known_tokens_are_not_added_again(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    size = len(tokenizer)
    assert tokenizer.add_tokens(["猫", "<SP>", "<|endoftext|>", "", "ほげ", "ほげ"]) == 1
    assert len(tokenizer) == size + 1
    assert tokenizer.add_tokens(["ほげ"], special_tokens=True) == 0
    assert tokenizer.decode([1, size, 1], skip_special_tokens=True) == "猫猫"
    with pytest.raises(TokenizationError, match="5 is no token"):
        tokenizer.add_tokens([5])


@pytest.mark.parametrize("as_option", [False, True])
def test_no_text_becomes_a_control_id_when_special_tokens_are_split(
    tokenizer: GPTNeoXJapaneseTokenizer, tmp_path: Path, as_option: bool
) -> None:
    tokenizer.add_tokens(["<|user|>"], special_tokens=True)
    tokenizer.add_tokens(["ほげ"])
    text = "<|endoftext|>ほげ<|user|><BR><|byte65|><|emoji1|><SP>猫"
    tags = ["<|endoftext|>", "<|user|>", "<BR>", "<|byte65|>", "<|emoji1|>", "<SP>"]
    controls = set(tokenizer.convert_tokens_to_ids(tags))
    word = tokenizer.convert_tokens_to_ids("ほげ")  # no control id: transformers keeps it too
    assert controls <= set(tokenizer(text)["input_ids"])
    options = {"split_special_tokens": True}
    if as_option:
        tokenizer.save_pretrained(tmp_path / "plain")
        loaded = GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path / "plain", **options)
        loaded.save_pretrained(tmp_path / "saved")
        tokenizer, options = AutoTokenizer.from_pretrained(tmp_path / "saved"), {}
        assert tokenizer.split_special_tokens
    bytes_of_text = set(tokenizer.convert_tokens_to_ids(["<|byte65|>"])) - {None}
    for ids in (
        tokenizer(text, **options)["input_ids"],
        tokenizer([text, text], **options)["input_ids"][1],
        tokenizer.encode(text, **options),
        tokenizer([text], is_split_into_words=True, **options)["input_ids"],
    ):
        assert not (controls - bytes_of_text) & set(ids)
        assert word in ids
        assert tokenizer.decode(ids) == text
    assert tokenizer.convert_tokens_to_string(tokenizer.tokenize(text, **options)) == text


def test_the_model_in_the_package_says_how_long_a_text_it_takes() -> None:
    directory = default_model_directory()
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(directory)
    config = AutoConfig.from_pretrained(directory)
    assert tokenizer.model_max_length == config.max_position_embeddings
    ids = tokenizer("吾輩は猫である。" * 500, truncation=True)["input_ids"]
    assert len(ids) == tokenizer.model_max_length


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


def test_methods_that_cannot_work_say_what_to_use(
    tokenizer: GPTNeoXJapaneseTokenizer, files: Path
) -> None:
    with pytest.raises(TokenizationError, match="neox-ja vocab build"):
        tokenizer.train_new_from_iterator([["吾輩は猫である"]], 100)
    with pytest.raises(TokenizationError, match="add_bos_token"):
        tokenizer.add_bos_token = True
    with pytest.raises(TokenizationError, match="gguf_file"):
        GPTNeoXJapaneseTokenizer.from_pretrained(files, gguf_file="model.gguf")
    with pytest.raises(TokenizationError, match="tokenizer_object"):
        GPTNeoXJapaneseTokenizer.from_pretrained(files, tokenizer_object=tokenizer._tokenizer)
    assert tokenizer.get_special_tokens_mask([1, tokenizer.eos_token_id]) == [0, 0]


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


def test_ids_are_those_of_transformers_around_special_tokens(
    published: GPTNeoXJapaneseTokenizer, reference_directory: Path
) -> None:
    from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseTokenizer as InTree

    files = [str(reference_directory / name) for name in ("vocab.txt", "emoji.json")]
    flags = {"lstrip": True, "rstrip": True}
    theirs, ours = InTree(*files), pickle.loads(pickle.dumps(published))
    for tokenizer in (theirs, ours):
        tokenizer.add_tokens([AddedToken("<|user|>", **flags), "foo", "foobar"])
    parts = ["<|endoftext|>", "<|user|>", "foobar", "foo", ">_<", "(^_^)", " ", "\r\n", "猫", "<"]
    parts += ["\r", "\n", "<|endof", "text|>", "<BR>", "🐯", "<|", "ar", "\u3000", "한"]
    random = Random(20)
    for _ in range(200):
        text = "".join(random.choices(parts, k=8))
        # Compare tokens: theirs gives added tokens the ids of <|nottoken|> and <|endoftext|>.
        assert ours.tokenize(text) == theirs.tokenize(text), text
        assert ours.convert_ids_to_tokens(ours(text)["input_ids"]) == [
            published.convert_ids_to_tokens(published.convert_tokens_to_ids(token))
            if token in published.codec.vocabulary.ids
            else token
            for token in ours.tokenize(text)
        ]


@pytest.mark.parametrize(
    "config",
    [
        {"tokenizer_class": "GPTNeoXJapaneseTokenizer"},
        {"tokenizer_class": "GPTNeoXJapaneseTokenizerFast"},
        {"model_max_length": 7},
        None,
    ],
)
def test_auto_tokenizer_gives_ours_for_every_directory_of_this_type(
    files: Path, config: dict[str, object] | None
) -> None:
    (files / "config.json").write_text(json.dumps({"model_type": "gpt_neox_japanese"}))
    if config is not None:
        (files / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = AutoTokenizer.from_pretrained(files)
    assert type(loaded) is GPTNeoXJapaneseTokenizer
    assert loaded("猫は")["input_ids"] == [1, 2]


def test_auto_tokenizer_gives_ours_when_the_model_is_ours_too(files: Path) -> None:
    from gpt_neox_japanese import GPTNeoXJapaneseConfig, GPTNeoXJapaneseForCausalLM

    assert GPTNeoXJapaneseForCausalLM.config_class is GPTNeoXJapaneseConfig
    (files / "config.json").write_text(json.dumps({"model_type": "gpt_neox_japanese"}))
    assert type(AutoConfig.from_pretrained(files)) is GPTNeoXJapaneseConfig
    assert type(AutoTokenizer.from_pretrained(files)) is GPTNeoXJapaneseTokenizer


def test_is_a_fast_tokenizer_to_whoever_asks(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert tokenizer.is_fast
    assert tokenizer.num_special_tokens_to_add() == tokenizer.num_special_tokens_to_add(True) == 0
    ids = [tokenizer.bos_token_id, 1]
    assert tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True) == [1, 0]


def test_class_may_be_swapped_on_a_copy(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    class Cached(GPTNeoXJapaneseTokenizer):
        def __len__(self) -> int:
            return 7

    twin = copy.copy(tokenizer)
    twin.__class__ = Cached
    assert len(twin) == 7
    assert twin("猫は")["input_ids"] == tokenizer("猫は")["input_ids"]
    assert twin.decode([1, 2]) == "猫は"


def test_text_is_decoded_from_every_kind_of_sequence(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    rows = [[1, 2], [2, 1]]
    for sequences in (
        rows,
        np.array(rows),
        torch.tensor(rows),
        [torch.tensor(row) for row in rows],
    ):
        assert tokenizer.batch_decode(sequences) == ["猫は", "は猫"]
        assert tokenizer.decode(sequences[0]) == "猫は"
    assert tokenizer.decode(rows) == ["猫は", "は猫"]
    assert tokenizer.decode(1) == tokenizer.decode(torch.tensor(1)) == "猫"
    assert tokenizer.decode([]) == ""


def test_spaces_are_cleaned_up_only_on_demand(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    ids = tokenizer("猫 . は")["input_ids"]
    assert tokenizer.decode(ids) == "猫 . は"
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=True) == "猫. は"


def test_chat_templates_are_applied(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    tokenizer.add_tokens(["<|user|>"], special_tokens=True)
    tokenizer.chat_template = (
        "{% for m in messages %}<|user|>{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}猫{% endif %}"
    )
    chat = [{"role": "user", "content": "吾輩は\n"}, {"role": "user", "content": "猫"}]
    user, eos = tokenizer.convert_tokens_to_ids(["<|user|>", "<|endoftext|>"])
    (newline,) = tokenizer("\n")["input_ids"]
    encoding = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)
    assert encoding["input_ids"] == [user, 0, 2, newline, eos, user, 1, eos, 1]
    assert tokenizer.apply_chat_template(chat, tokenize=False).count("<|user|>") == 2


def test_assistant_tokens_of_a_chat_are_marked(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}"
        "{% else %}{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}"
    )
    chat = [{"role": "user", "content": "吾輩は"}, {"role": "assistant", "content": "猫は"}]
    encoding = tokenizer.apply_chat_template(
        chat, return_dict=True, return_assistant_tokens_mask=True
    )
    assert encoding["assistant_masks"] == [0, 0, 1, 1]


def test_stop_strings_of_generate_can_be_searched(tokenizer: GPTNeoXJapaneseTokenizer) -> None:
    criteria = StopStringCriteria(tokenizer, ["は猫"])
    rows = torch.tensor([[1, 2, 1], [2, 1, 2]])
    assert criteria(rows, torch.zeros(2, 1)).tolist() == [True, False]


def test_a_default_that_neither_the_vocabulary_nor_a_file_knows_may_have_another_in_its_place(
    tmp_path: Path,
) -> None:
    vocabulary(["猫"]).save(tmp_path)
    file = tmp_path / "vocab.txt"
    forms = file.read_text(encoding="utf-8").split("\n")
    forms.remove("<|startoftext|>")
    file.write_text("\n".join(forms), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>"}', encoding="utf-8")
    ids = Codec.from_pretrained(tmp_path).encode("猫。")
    assert ids == GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path)("猫。")["input_ids"]


def test_a_special_token_without_characters_is_none(tmp_path: Path) -> None:
    vocabulary(["猫"]).save(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"pad_token": "", "own_token": ""}', encoding="utf-8")
    assert Codec.from_pretrained(tmp_path).encode("猫") == [0]
    config.write_text('{"unk_token": ""}', encoding="utf-8")
    with pytest.raises(VocabularyError, match="no entry ''"):
        Codec.from_pretrained(tmp_path)
