from __future__ import annotations

import pytest

from gpt_neox_japanese.server.api.responses import Text, Tokens
from gpt_neox_japanese.server.service import ServedModel
from tests.server.serving import Server, assert_error

TEXTS = ["", "吾輩は猫である。", "① 한국\r\n👨‍👩‍👧です\t—", "<|endoftext|><SP>", "猫" * 2_000]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("field", ["prompt", "content"])
def test_ids_are_the_codecs_and_pieces_are_the_text(
    server: Server, model: ServedModel, text: str, field: str
) -> None:
    answer = server.post("/tokenize", {field: text}).json()
    Tokens.model_validate(answer)
    assert answer["tokens"] == model.codec.encode(text)
    assert answer["count"] == len(answer["tokens"]) == len(answer["pieces"])
    assert answer["max_model_len"] == 1024
    assert "".join(piece["text"] for piece in answer["pieces"]) == text
    assert answer["normalized"] == model.codec.decode(answer["tokens"])
    back = server.post("/detokenize", {"tokens": answer["tokens"]}).json()
    assert back == {"prompt": answer["normalized"], "content": answer["normalized"]}
    Text.model_validate(back)


def test_what_was_folded_is_marked(server: Server) -> None:
    pieces = server.post("/tokenize", {"prompt": "①한—猫"}).json()["pieces"]
    marked = [(piece["text"], piece["normalized"]) for piece in pieces]
    assert marked == [
        ("①", True),
        ("", False),
        ("", False),
        ("한", False),
        ("—", True),
        ("猫", False),
    ]
    assert [piece["bytes"] for piece in pieces[1:4]] == [[0xED], [0x95], [0x9C]]
    assert {(piece["start"], piece["end"]) for piece in pieces[1:4]} == {(1, 2)}


def test_wrong_requests_are_refused(server: Server) -> None:
    for body in ({}, {"prompt": "猫", "content": "猫"}, {"prompt": ["猫"]}, {"prompt": None}):
        assert_error(server.post("/tokenize", body), 400)
    for tokens in (None, "猫", [-1], [8000], [1.5], [True], ["1"], [[1]], [2**40]):
        assert_error(server.post("/detokenize", {"tokens": tokens}), 400)
    assert server.post("/detokenize", {"tokens": []}).json()["prompt"] == ""
    for path, body in (("/tokenize", {"prompt": ""}), ("/detokenize", {"tokens": []})):
        assert_error(server.post(path, {**body, "model": "other"}), 404)
