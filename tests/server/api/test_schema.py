from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gpt_neox_japanese.server.api.schema import (
    ChatCompletionRequest,
    CompletionRequest,
    DetokenizeRequest,
)
from tests.server.serving import Server, assert_error

MANY = 20_000


@pytest.mark.parametrize(
    ("request_type", "body"),
    [
        (CompletionRequest, {"prompt": [[None]] * 5000}),
        (CompletionRequest, {"prompt": "猫", "stop": [None] * MANY}),
        (CompletionRequest, {"prompt": "猫", "logit_bias": {f"猫{i}": None for i in range(MANY)}}),
        (ChatCompletionRequest, {"messages": [None] * MANY}),
        (ChatCompletionRequest, {"messages": [{"role": "user", "content": [None] * MANY}]}),
        (DetokenizeRequest, {"tokens": [None] * MANY}),
    ],
)
def test_a_long_list_is_refused_once(request_type: Any, body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        request_type.model_validate(body)
    assert refused.value.error_count() == 1


@pytest.mark.parametrize("wrong", [None, [None], [[]]])
def test_the_number_of_prompts_is_looked_at_before_they_are(server: Server, wrong: Any) -> None:
    for prompt in ("猫", [1]):
        body = {"prompt": [prompt] * MANY + [wrong]}
        error = assert_error(server.post("/v1/completions", body), 400, "20001 prompts")
        assert (error["param"], error["code"]) == ("prompt", "too_many_texts")


def test_a_part_of_a_message_that_is_no_text_is_told(server: Server) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "猫"}, image]}]}
    error = assert_error(server.post("/v1/chat/completions", body), 400, '"type": "text"')
    assert error["param"] == "messages.0.content"


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ("completions", "suffix", "犬"),
        ("chat/completions", "tools", [{"type": "function"}]),
        ("chat/completions", "functions", [{"name": "look"}]),
    ],
)
def test_what_is_not_supported_is_told_unless_it_is_nothing(
    server: Server, path: str, field: str, value: Any
) -> None:
    body = {"prompt": "猫", "messages": [{"role": "user", "content": "猫"}], "max_tokens": 1}
    error = assert_error(server.post(f"/v1/{path}", {**body, field: value}), 400)
    assert error["param"] == field
    assert error["message"] == f"{field}: is not supported; leave it out"
    for nothing in (None, type(value)()):
        answer = server.post(f"/v1/{path}", {**body, field: nothing})
        assert "not supported" not in answer.text
