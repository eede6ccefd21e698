"""A chat template: messages to a prompt's ids."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt_neox_japanese.errors import ArgumentError, CheckpointError
from gpt_neox_japanese.files.json_files import read_object
from gpt_neox_japanese.tokenizer.codec import END_OF_TEXT, Codec

__all__ = ["ChatTemplate", "find_chat_template"]

_MAX_SECONDS = 5.0  # of one rendering
_WORKER = Path(__file__).with_name("template_worker.py")

# Characters that stand for nothing; one of them breaks the tags that a message spells.
_NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


class ChatTemplate:
    """Makes ids of messages, by a Jinja template as transformers has them.

    The tags that the template writes become their ids. One that a string of a message spells stays
    text, so that nobody ends a turn, or begins one, by typing its tag. One that only the template
    puts together cannot be told from its own: of two strings side by side (a role and a content,
    with nothing between them), or of a string that a filter changes. A template for messages of
    strangers must do neither.

    Args:
        source: The template.
        codec: Whose ids.

    Raises:
        ArgumentError: It is no template.
    """

    def __init__(self, source: str, codec: Codec) -> None:
        self._renderer = _Renderer(source)
        self._codec = codec
        tags = sorted(codec.special_tokens_set, key=len, reverse=True)
        self._tags = re.compile("|".join(map(re.escape, tags)) or r"(?!)")
        begin = "<|startoftext|>"
        self._names = {
            "bos_token": begin if codec.token_to_id(begin) is not None else "",
            "eos_token": END_OF_TEXT if codec.token_to_id(END_OF_TEXT) is not None else "",
        }

    def encode(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The ids of a prompt that asks for the next message.

        Args:
            messages: With `role` and `content`.

        Returns:
            Ids.

        Raises:
            ArgumentError: The template refuses these messages, or fails.
            TokenizationError: A text cannot be encoded.
        """
        written = json.dumps(messages, ensure_ascii=False)
        breaker = next((c for c in _NONCHARACTERS if c not in written), None)
        if breaker is None:
            raise ArgumentError("the messages hold all of U+FDD0 to U+FDEF, which are no text")
        broken = _map_strings(messages, lambda text: self._break(text, breaker))
        text = self._renderer.render(
            {"messages": broken, "add_generation_prompt": True, **self._names}
        )
        ids: list[int] = []
        end = 0
        for tag in self._tags.finditer(text):
            ids += self._codec.encode(text[end : tag.start()].replace(breaker, ""))
            tag_id = self._codec.token_to_id(tag.group())
            assert tag_id is not None
            ids.append(tag_id)
            end = tag.end()
        return ids + self._codec.encode(text[end:].replace(breaker, ""))

    def close(self) -> None:
        """End what renders. May be repeated; the next call starts it again."""
        self._renderer.close()

    def _break(self, text: str, breaker: str) -> str:
        return self._tags.sub(lambda tag: tag.group()[0] + breaker + tag.group()[1:], text)


class _Renderer:
    """Renders a template in another process (`template_worker`), and ends it if it takes too long.

    Threads take turns.

    Args:
        source: The template.

    Raises:
        ArgumentError: It is no template.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[str] | None = None
        self._running()

    def __del__(self) -> None:
        self.close()

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text for some variables.

        Args:
            variables: What JSON can hold.

        Returns:
            What the template makes of them.

        Raises:
            ArgumentError: The template refuses them, fails, or takes too long.
        """
        with self._lock:
            return self._ask(self._running(), variables, "refuses these messages")

    def close(self) -> None:
        """End the process."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            worker.communicate()

    def _running(self) -> subprocess.Popen[str]:
        """The process, which knows the template."""
        if self._worker is not None and self._worker.poll() is None:
            return self._worker
        self.close()
        worker = self._worker = subprocess.Popen(  # noqa: S603 our own file
            [sys.executable, "-P", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="ascii",
            start_new_session=True,  # Ctrl-C is the server's to answer
        )
        self._ask(worker, self._source, "cannot be read")
        return worker

    def _ask(self, worker: subprocess.Popen[str], value: Any, failure: str) -> str:
        assert worker.stdin is not None
        assert worker.stdout is not None
        timer = threading.Timer(_MAX_SECONDS, worker.kill)
        timer.daemon = True
        timer.start()
        try:
            print(json.dumps(value), file=worker.stdin, flush=True)
            line = worker.stdout.readline()
        except (OSError, ValueError):  # it ended by itself, or was closed
            line = ""
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            self.close()
            raise ArgumentError(
                f"the chat template {failure}: it takes more than {_MAX_SECONDS:g} s, or too much"
                " memory"
            )
        answer: dict[str, str] = json.loads(line)
        if "error" in answer:
            raise ArgumentError(f"the chat template {failure}: {answer['error']}")
        return answer["text"]


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
            return file.read_text(encoding="utf-8")
        if own.is_file():
            return own.read_text(encoding="utf-8")
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


def _map_strings(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map_strings(each, change) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [_map_strings(each, change) for each in value]
    return value
