from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpt_neox_japanese.corpus import Layout, read_documents
from gpt_neox_japanese.corpus.conversations import messages_of
from gpt_neox_japanese.errors import CorpusError

USER, ANSWER = {"role": "user", "content": "今日は。"}, {"role": "assistant", "content": "はい。"}


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [USER, ANSWER]},
        {"messages": [{**USER, "name": "太郎"}, ANSWER], "source": "我が家"},
        {"prompt": "今日は。", "completion": "はい。"},
        {"prompt": [USER], "completion": [ANSWER]},
        {"messages": [USER, ANSWER], "prompt": "猫"},
    ],
)
def test_forms_of_a_conversation_are_one(fields: Any) -> None:
    assert messages_of(fields, "here") == [USER, ANSWER]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([], "no conversation"),
        ({"text": "猫"}, "no conversation"),
        ({"messages": []}, "'messages' is"),
        ({"messages": "猫"}, "'messages' is '猫'"),
        ({"messages": [USER]}, "last message is of 'user'"),
        ({"messages": [USER, 5]}, "message 2 is 5"),
        ({"messages": [USER, {"role": "assistant"}]}, "message 2 has the content None"),
        ({"messages": [{"content": "猫"}, ANSWER]}, "message 1 has the role None"),
        ({"messages": [USER, {**ANSWER, "content": ""}]}, "message 2 has the content ''"),
        ({"messages": [USER, {**ANSWER, "content": ["猫"]}]}, "message 2 has the content"),
        ({"prompt": "猫"}, "'completion' is None"),
        ({"prompt": "猫", "completion": ""}, "message 1 has the content ''"),
    ],
)
def test_what_is_half_formed_is_named(fields: Any, said: str) -> None:
    with pytest.raises(CorpusError, match=f"^here.*{said}"):
        messages_of(fields, "here")


def test_lines_are_named_by_file_and_number(tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    lines = [{"messages": [USER, ANSWER]}, {"messages": [USER]}]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    documents = read_documents([file], Layout(conversations=True))
    assert json.loads(next(documents).text) == [USER, ANSWER]
    with pytest.raises(CorpusError, match=r"talk\.jsonl, line 2: the last message"):
        next(documents)


def test_surrogates_in_a_message_are_named(tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    file.write_text('{"prompt": "\\ud800", "completion": "猫"}', encoding="utf-8")
    with pytest.raises(CorpusError, match=r"line 1: lone surrogate U\+D800"):
        list(read_documents([file], Layout(conversations=True)))


def test_only_json_lines_are_conversations(tmp_path: Path) -> None:
    (tmp_path / "talk.txt").write_text("今日は。", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"lines of \.jsonl files"):
        list(read_documents([tmp_path], Layout(conversations=True)))
