"""What goes wrong while a tokenizer is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt_neox_japanese import GPTNeoXJapaneseTokenizer
from gpt_neox_japanese.errors import TokenizationError, VocabularyError
from tests.tokenizer.small import vocabulary


@pytest.fixture
def files(tmp_path: Path) -> Path:
    vocabulary(["猫"]).save(tmp_path)
    return tmp_path


def test_an_id_of_the_hub_that_cannot_be_reached_is_said_to_be_so() -> None:
    with pytest.raises(OSError, match="couldn't connect to"):
        GPTNeoXJapaneseTokenizer.from_pretrained("abeja/gpt-neox-japanese-2.7b")


def test_a_directory_without_a_vocabulary_is_named(files: Path) -> None:
    (files / "emoji.json").unlink()
    with pytest.raises(VocabularyError, match=rf"no emoji\.json in '{files}'"):
        GPTNeoXJapaneseTokenizer.from_pretrained(files)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"vocab\.txt"):
        GPTNeoXJapaneseTokenizer(str(tmp_path / "vocab.txt"), str(tmp_path / "emoji.json"))


def test_bos_and_eos_are_not_added_in_secret(files: Path) -> None:
    with pytest.raises(TokenizationError, match="add_eos_token"):
        GPTNeoXJapaneseTokenizer.from_pretrained(files, add_eos_token=True)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("tokenizer_config.json", b'{"__class__": false}'),
        ("tokenizer_config.json", b'{"chat_control_tokens": 5}'),
        ("chat_template.jinja", b"{{ \xb8 }}"),
    ],
)
def test_what_transformers_stumbles_over_in_a_file_is_told_as_the_files_fault(
    tmp_path: Path, name: str, data: bytes
) -> None:
    vocabulary(["猫"]).save(tmp_path)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(VocabularyError, match=r"cannot be loaded|must be"):
        GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ('"model_max_length": "512"', "model_max_length is '512'; it must be an integer"),
        ('"model_max_length": 0.5', "an integer, 1 or more"),
        ('"max_len": -1', "an integer, 1 or more"),
        ('"legacy": 0', "True or False"),
        ('"do_clean_text": "false"', "True or False"),
        ('"split_special_tokens": []', "True or False"),
        ('"truncation_side": "middle"', "'left' or 'right'"),
        ('"padding_side": null', "'left' or 'right'"),
        ('"model_input_names": "input_ids"', "begin with 'input_ids'"),
        ('"model_input_names": ["attention_mask"]', "begin with 'input_ids'"),
        ('"model_input_names": ["input_ids", null]', "begin with 'input_ids'"),
        ('"model_input_names": null', "begin with 'input_ids'"),
        ('"chat_template": 3', "a string, or strings by their names"),
        ('"chat_template": {"a": 1}', "a string, or strings by their names"),
        ('"chat_template": {"../a": "x"}', "a string, or strings by their names"),
        ('"chat_template": [{"name": "a"}]', "a string, or strings by their names"),
        ('"chat_template": [{"name": [], "template": "x"}]', "a string, or strings by their names"),
        ('"x": ["\\ud800"]', "x cannot be saved"),
    ],
)
def test_options_with_which_a_tokenizer_could_not_be_used_or_saved_are_refused(
    files: Path, field: str, reason: str
) -> None:
    (files / "tokenizer_config.json").write_text(f"{{{field}}}", encoding="utf-8")
    with pytest.raises(TokenizationError, match=reason):
        GPTNeoXJapaneseTokenizer.from_pretrained(files)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("do_clean_text", "false"),
        ("legacy", "no"),
        ("split_special_tokens", 1),
        ("truncation_side", "middle"),
        ("padding_side", 5),
        ("model_max_length", 2.0),
        ("model_input_names", "input_ids"),
        ("chat_template", 3),
        ("add_eos_token", True),
    ],
)
def test_an_option_that_is_assigned_is_checked_and_stays_what_it_was(
    files: Path, option: str, value: object
) -> None:
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(files)
    before = getattr(tokenizer, option, None)
    with pytest.raises(TokenizationError, match=option):
        setattr(tokenizer, option, value)
    assert getattr(tokenizer, option, None) == before


def test_options_of_other_programs_do_no_harm(files: Path, tmp_path: Path) -> None:
    options = '{"model_max_length": null, "model_input_names": ["input_ids"], "max_len": 9, "x": 1}'
    (files / "tokenizer_config.json").write_text(options, encoding="utf-8")
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(files)
    assert tokenizer("猫").keys() == {"input_ids"}
    tokenizer.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer_config.json").is_file()


@pytest.mark.parametrize(
    "templates",
    ['"x"', "null", '{"default": "x", "a": "y"}', '[{"name": "a", "template": "x"}]', "[]"],
)
def test_chat_templates_of_every_form_are_saved_as_they_were_loaded(
    files: Path, tmp_path: Path, templates: str
) -> None:
    (files / "tokenizer_config.json").write_text(
        f'{{"chat_template": {templates}}}', encoding="utf-8"
    )
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(files)
    tokenizer.save_pretrained(tmp_path / "saved")
    again = GPTNeoXJapaneseTokenizer.from_pretrained(tmp_path / "saved")
    assert (again.chat_template or None) == (tokenizer.chat_template or None)
