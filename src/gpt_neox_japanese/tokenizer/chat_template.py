"""A chat template: messages to ids, of a prompt or of a conversation that is learned from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpt_neox_japanese.checks import short_repr
from gpt_neox_japanese.errors import ArgumentError, CheckpointError
from gpt_neox_japanese.files.json_files import read_object
from gpt_neox_japanese.tokenizer.added_tokens import AddedToken, TokenFinder, TokenFlags
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.tokenizer.template_renderer import TemplateRenderer
from gpt_neox_japanese.tokenizer.tokenizer_config import DEFAULT_NAMES

__all__ = ["ChatTemplate", "Messages", "Turns", "find_chat_template"]

Messages = Sequence[Mapping[str, Any]]
"""What was said, in order, each with `role` and `content`."""

# Characters that stand for nothing; one of them breaks the tags that a message spells.
_NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]

# By these a template finds what a message holds, so that no tag is broken in them.
_FIELDS = ("role", "content", "name")

# Names of what is thought before an answer; the first that a message has counts.
_REASONING = ("reasoning_content", "thinking", "reasoning")


class Turns(NamedTuple):
    """A conversation to learn from.

    Attributes:
        ids: Of all of it.
        is_answer: For each id whether it belongs to an answer.
    """

    ids: list[int]
    is_answer: list[bool]


class ChatTemplate:
    """Makes ids of messages, by a Jinja template as transformers has them.

    The tags that the template writes become their ids. One that a string of a message spells, a
    value or the key of one, stays text, so that nobody ends a turn, or begins one, by typing its
    tag. One that only the template puts together cannot be told from its own: of two strings side
    by side (a role and a content, with nothing between them), or of a string that a filter changes.
    A template for messages of strangers must do neither.

    A template sees what transformers shows it: `messages`, `add_generation_prompt`, `eos_token` and
    the other names that the tokenizer's files give to tokens, `tools` and `documents`, both none.
    As there since 5.24, what is None in a message is not shown, and what is thought before an
    answer is found under either of its names, `reasoning_content` and `thinking`.

    Args:
        source: The template.
        codec: Whose ids.

    Raises:
        ArgumentError: It is no template.
    """

    def __init__(self, source: str, codec: Codec) -> None:
        self._renderer = TemplateRenderer(source)
        self._codec = codec
        tags = sorted(codec.special_tokens_set, key=len, reverse=True)
        any_tag = "|".join(map(re.escape, tags)) or r"(?!)"
        self._tag_anywhere = re.compile(f"(?=({any_tag}))")  # those that overlap as well
        tokens = {tag: _token(tag, codec) for tag in tags}
        self._tags = TokenFinder(tokens)
        self._takes_space_before = any(token.lstrip for _, token in tokens.values())
        # A default that neither the vocabulary nor a file knows is no token.
        defaults = {
            name: "" if codec.token_to_id(token) is None else token
            for name, token in DEFAULT_NAMES.items()
        }
        names = {**defaults, **codec.added_tokens.names}
        self._names = {name: token for name, token in names.items() if token is not None}

    def encode(self, messages: Messages) -> list[int]:
        """The ids of a prompt that asks for the next message.

        Args:
            messages: With `role` and `content`.

        Returns:
            Ids.

        Raises:
            ArgumentError: The template refuses these messages, or fails.
            TokenizationError: A text cannot be encoded.
        """
        breaker = _breaker(messages)
        return self._ids(self._render(messages, breaker, asks=True), breaker)

    def encode_turns(self, messages: Messages) -> Turns:
        """The ids of a whole conversation, and which of them are answers.

        An answer is what follows the prompt that asks for it, up to where the next message begins,
        its end mark included: what a model is to write there.

        Args:
            messages: With `role` and `content`; at least one is the assistant's.

        Returns:
            Ids, and for each whether an answer holds it.

        Raises:
            ArgumentError: Nobody answers, or the template refuses these messages, fails, writes
                nothing for an answer, or a conversation otherwise than by adding to the prompts
                that led to it.
            TokenizationError: A text cannot be encoded.
        """
        breaker = _breaker(messages)
        ids: list[int] = []
        answers: list[bool] = []

        whole = self._render(messages, breaker, asks=False)
        done = 0
        for number, message in enumerate(messages):
            if message.get("role") != "assistant":
                continue
            prompt = self._render(messages[:number], breaker, asks=True)
            answered = self._render(messages[: number + 1], breaker, asks=False)
            if not (whole.startswith(answered) and answered.startswith(prompt) and prompt[done:]):
                raise ArgumentError(
                    "the chat template does not write an answer right behind its prompt, so it"
                    " cannot be told what a model is to learn; use another template"
                )
            # Each by itself: a prompt is encoded before its answer is known.
            asked = self._ids(prompt[done:], breaker)
            end = len(answered)
            if self._takes_space_before:  # it may be that of the next message's first tag
                end = max(len(prompt), len(answered.rstrip()))
            answer = self._ids(answered[len(prompt) : end], breaker)
            if not answer:
                raise ArgumentError(
                    f"the chat template writes nothing for message {number + 1}, an answer, and no"
                    " end of it, so there is nothing to learn"
                )
            ids += asked + answer
            answers += [False] * len(asked) + [True] * len(answer)
            done = end
        if not done:
            raise ArgumentError("no message is the assistant's, so there is nothing to learn")
        return Turns(ids, answers)

    def close(self) -> None:
        """End what renders. May be repeated; nothing is encoded after it."""
        self._renderer.close()

    def _render(self, messages: Messages, breaker: str, *, asks: bool) -> str:
        broken = [
            {
                key if key in _FIELDS else self._break(key, breaker): self._break(value, breaker)
                for key, value in message.items()
            }
            for message in map(_shown, messages)
        ]
        return self._renderer.render(
            {
                "messages": broken,
                "add_generation_prompt": asks,
                "tools": None,
                "documents": None,
                **self._names,
            }
        )

    def _ids(self, text: str, breaker: str) -> list[int]:
        """The ids of what a template wrote: of its tags their own, of all else those of text."""
        ids: list[int] = []
        done = 0
        for start, end, tag in self._tags.split(text):
            # A tag of one character is found even if it is broken, with two breakers behind it.
            if tag is None or text.startswith((breaker * 2, _escaped(breaker) * 2), end):
                continue
            ids += self._codec.encode(_mended(text[done:start], breaker))
            ids.append(tag)
            done = end
        return ids + self._codec.encode(_mended(text[done:], breaker))

    def _break(self, value: Any, breaker: str) -> Any:
        """Put breakers around every character of every tag that the strings of a value spell.

        Tags overlap and hold each other, and one may be a single character: a broken one is none,
        whatever part of it is looked at, and whatever the template writes beside it.
        """
        if isinstance(value, Mapping):
            return {
                self._break(key, breaker): self._break(each, breaker) for key, each in value.items()
            }
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [self._break(each, breaker) for each in value]
        if not isinstance(value, str) or self._tag_anywhere.search(value) is None:
            return value
        characters = list(value)
        done = 0
        for tag in self._tag_anywhere.finditer(value):
            for place in range(max(done, tag.start()), tag.end(1)):
                characters[place] = breaker + characters[place] + breaker * 2
            done = max(done, tag.end(1))
        return "".join(characters)


def find_chat_template(directory: Path, file: Path | None) -> str | None:
    """The template to use.

    Args:
        directory: The model's.
        file: What the user names instead; None for the model's own.

    Returns:
        Its source; None if there is none.

    Raises:
        ArgumentError: The file cannot be read.
    """
    own = directory / "chat_template.jinja"
    config = directory / "tokenizer_config.json"
    try:
        if file is not None:
            return file.read_text(encoding="utf-8-sig")  # a byte order mark is no part of a prompt
        if own.is_file():
            return own.read_text(encoding="utf-8")  # the mark is kept, for transformers keeps it
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"the chat template cannot be read: {error}") from error
    template = read_object(config).get("chat_template") if config.is_file() else None
    if isinstance(template, list):  # several, each with a name
        named = {str(each.get("name")): each for each in template if isinstance(each, dict)}
        template = named.get("default", {}).get("template")
    if template is None or isinstance(template, str):
        return template
    raise CheckpointError(
        f"{str(config)!r}: chat_template is neither a string nor a list; name one with"
        " --chat-template FILE"
    )


def _shown(message: Mapping[str, Any]) -> dict[str, Any]:
    """What a template sees of a message."""
    said = {key: value for key, value in message.items() if value is not None}
    reasoning = next((said[name] for name in _REASONING if name in said), None)
    if reasoning is None:
        return said
    return {"thinking": reasoning, **said, "reasoning_content": reasoning}


def _breaker(messages: Messages) -> str:
    """A character that none of the messages holds."""
    is_list = isinstance(messages, Sequence) and not isinstance(messages, str)
    if not (is_list and all(isinstance(each, Mapping) for each in messages)):
        raise ArgumentError(
            f"messages is {short_repr(messages)}; it must be a list of objects with role and"
            " content"
        )
    try:
        written = json.dumps(messages, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(f"the messages are not what JSON can hold: {error}") from error
    breaker = next(
        (c for c in _NONCHARACTERS if c not in written and _escaped(c) not in written), None
    )
    if breaker is None:
        raise ArgumentError("the messages hold all of U+FDD0 to U+FDEF, which are no text")
    return breaker


def _token(tag: str, codec: Codec) -> tuple[int, TokenFlags]:
    """A tag's id, and its flags where it was added."""
    token_id = codec.token_to_id(tag)
    assert token_id is not None
    added = codec.added_tokens.tokens.get(token_id)
    if added is None or added.content != tag:
        return token_id, AddedToken(tag, special=True)
    return token_id, added


def _escaped(breaker: str) -> str:
    """How JSON and Python write it where a template asks for plain ASCII, or prints an object."""
    return f"\\u{ord(breaker):04x}"


def _mended(text: str, breaker: str) -> str:
    """The text without what broke its tags."""
    return text.replace(breaker, "").replace(_escaped(breaker), "")
