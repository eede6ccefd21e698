"""Conversations as JSON lines: what was said by whom, and nothing half-formed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpt_neox_japanese.checks import short_repr
from gpt_neox_japanese.errors import CorpusError

__all__ = ["messages_of"]

_FORMS = '{"messages": [{"role": "user", "content": "…"}, …]} or {"prompt": "…", "completion": "…"}'


def messages_of(fields: Any, place: str) -> list[dict[str, str]]:
    """The messages of a line, in the forms that datasets of the Hub and trl have.

    `prompt` and `completion` are a user's message and its answer; they may also be lists of
    messages. `messages` goes first where both stand. A conversation ends with an answer, for that
    is what is learned.

    Args:
        fields: What the line says.
        place: Its file and number, for the message of an error.

    Returns:
        Each message's `role` and `content`, in order.

    Raises:
        CorpusError: It is no conversation; the message names the place, and what is wrong.
    """
    if not isinstance(fields, dict) or not fields.keys() & {"messages", "prompt"}:
        raise CorpusError(f"{place}: no conversation; write {_FORMS}")
    if "messages" in fields:
        messages = _messages(fields["messages"], "messages", place)
    else:
        messages = [
            *_spoken(fields["prompt"], "prompt", "user", place),
            *_spoken(fields.get("completion"), "completion", "assistant", place),
        ]
    if messages[-1]["role"] != "assistant":
        raise CorpusError(
            f"{place}: the last message is of {messages[-1]['role']!r}; a conversation ends with an"
            " answer of 'assistant'"
        )
    return messages


def _spoken(value: Any, name: str, role: str, place: str) -> list[dict[str, str]]:
    """What one text, or a list of messages, says."""
    if isinstance(value, str):
        value = [{"role": role, "content": value}]
    return _messages(value, name, place)


def _messages(value: Any, name: str, place: str) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise CorpusError(f"{place}: {name!r} is {short_repr(value)}; write {_FORMS}")
    return [
        _message(each, f"{place}: message {number}") for number, each in enumerate(value, start=1)
    ]


def _message(value: Any, place: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise CorpusError(f"{place} is {short_repr(value)}, expected its role and content")
    message = {}
    for field in ("role", "content"):
        text = value.get(field)
        if not isinstance(text, str) or not text:
            raise CorpusError(
                f"{place} has the {field} {short_repr(text)}, expected a text that is not empty"
            )
        message[field] = text
    return message
