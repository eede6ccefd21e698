from __future__ import annotations

from pathlib import Path

from gpt_neox_japanese.server.api.logprobs import TokenNames
from gpt_neox_japanese.server.service import ServedModel
from gpt_neox_japanese.tokenizer.codec import Codec
from tests.tokenizer.small import vocabulary


def test_no_two_ids_have_one_name(model: ServedModel) -> None:
    size = len(model.codec)
    names = [model.names.name(token_id) for token_id in range(size)]
    assert len(set(names)) == size
    assert not any("\ufffd" in name for name in names)


def test_ids_are_named_by_what_they_stand_for(model: ServedModel) -> None:
    codec, names = model.codec, model.names

    def name(token: str) -> str:
        token_id = codec.token_to_id(token)
        assert token_id is not None
        return names.name(token_id)

    assert name("猫") == "猫"
    assert name("<SP>") == " "
    assert name("<BR>") == "\n"
    assert name("<|endoftext|>") == "<|endoftext|>"
    assert name("<|byte233|>") == r"bytes:\xe9"
    assert name("<|byte101|>") == r"bytes:\x65"
    assert name("‖") == "‖"
    assert name("<U2000U2BFF>") == f"token_id:{codec.token_to_id('<U2000U2BFF>')}"
    assert names.name(5, as_id=True) == "token_id:5"
    assert names.bytes(codec.encode("猫")[0]) == list("猫".encode())
    assert names.text(codec.encode("한")[0]) == ""


def test_text_that_looks_like_a_name_is_not_taken_for_it(tmp_path: Path) -> None:
    codec = Codec(vocabulary(["猫", r"bytes:\xe9", "token_id:0"]), legacy=False)
    names = TokenNames(codec)
    every = [names.name(token_id) for token_id in range(len(codec))]
    assert len(set(every)) == len(codec)
    text_id = codec.token_to_id(r"bytes:\xe9")
    assert text_id is not None
    assert text_id not in names.byte_ids
