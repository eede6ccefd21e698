"""`neox-ja chat`: a conversation in the terminal, with a model that learned to answer."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpt_neox_japanese.cli.options.help_sections import GroupedCommand
from gpt_neox_japanese.cli.options.number_types import Whole
from gpt_neox_japanese.cli.options.sampling import CHOICE, LENGTH, sampling_options
from gpt_neox_japanese.cli.options.shared import PATH, network_options
from gpt_neox_japanese.cli.options.stdin import TEXT

if TYPE_CHECKING:
    from gpt_neox_japanese.inference.generator import TextGenerator
    from gpt_neox_japanese.tokenizer.chat_template import ChatTemplate

__all__ = ["command"]

_RESET = "/reset"


@click.command(cls=GroupedCommand)
@LENGTH(
    "--max-new-tokens",
    type=Whole(min=1),
    default=400,
    show_default=True,
    help="How many tokens an answer has at most.",
)
@sampling_options
@CHOICE("--seed", type=Whole(min=0), help="The same seed and messages give the same answers.")
@click.option("--system", type=TEXT, help="What the model is told before the conversation.")
@click.option(
    "--chat-template", type=PATH, help="Jinja template of the conversation.  [default: the model's]"
)
@network_options
def command(
    model: str,
    dtype: str,
    device: str,
    threads: int | None,
    max_new_tokens: int,
    seed: int | None,
    system: str | None,
    chat_template: Path | None,
    **sampling: Any,
) -> None:
    """Talk with a model that was trained on conversations.

    Each line of standard input is a message, and its answer is written as it comes. /reset begins
    a new conversation, Ctrl-D ends. Where the model's context is full, the oldest messages are
    forgotten. A message that cannot be answered is told, and the next one is read; from a pipe the
    exit status is then 2.
    """
    from gpt_neox_japanese.errors import ArgumentError, GenerationError, TokenizationError
    from gpt_neox_japanese.files.model_directory import find_model
    from gpt_neox_japanese.inference.generator import TextGenerator
    from gpt_neox_japanese.tokenizer.chat_template import ChatTemplate, find_chat_template

    if sys.stdin is None:
        raise click.UsageError("no message given; pipe a line for each in, or type them")
    source = find_chat_template(find_model(model), chat_template)
    if source is None:
        raise click.UsageError(
            f"the model {model} has no chat template: it continues text, and has not learned to"
            " answer; train it on conversations, use `neox-ja generate`, or give"
            " --chat-template FILE"
        )
    options = {name: value for name, value in sampling.items() if value is not None}
    options |= {"max_new_tokens": max_new_tokens, "seed": seed}
    with (
        TextGenerator.from_pretrained(
            model, dtype=dtype, device=device, slots=1, threads=threads
        ) as generator,
        closing(ChatTemplate(source, generator.codec)) as template,
    ):
        talk = _Conversation(generator, template, system, options)
        is_refused = False
        for line in _lines():
            if line == _RESET:
                talk.reset()
                continue
            try:
                talk.answer(line)
            except (ArgumentError, GenerationError, TokenizationError) as error:
                is_refused = True
                _say(" ".join(str(error).split()))
    if is_refused and not sys.stdin.isatty():
        raise click.exceptions.Exit(2)


class _Conversation:
    """What was said so far, and who goes on."""

    def __init__(
        self,
        generator: TextGenerator,
        template: ChatTemplate,
        system: str | None,
        options: dict[str, Any],
    ) -> None:
        self._generator, self._template, self._options = generator, template, options
        self._system = [{"role": "system", "content": system}] if system else []
        self._said: list[dict[str, str]] = []

    def reset(self) -> None:
        """Forget what was said."""
        self._said = []

    def answer(self, text: str) -> None:
        """Say something, and write what the model says to it.

        Raises:
            ArgumentError: The template refuses it. Like what follows, it then was not said.
            GenerationError: The context does not hold it, or an option cannot be used.
            TokenizationError: It cannot be encoded.
        """
        said, ids = self._newest([*self._said, {"role": "user", "content": text}])
        stream = self._generator.stream_details(ids, **self._options)
        for _ in range(0, len(self._said) + 1 - len(said), 2):
            _say("the context is full; the oldest question and its answer are forgotten")
        answer = []
        for chunk in stream:
            answer.append(chunk.text)
            click.echo(chunk.text, nl=False)
        click.echo()
        self._said = [*said, {"role": "assistant", "content": "".join(answer)}]
        if stream.context_is_full:
            _say("the model's context is full: the answer ends before --max-new-tokens")

    def _newest(self, said: list[dict[str, str]]) -> tuple[list[dict[str, str]], list[int]]:
        """The newest messages that leave room for an answer, and their ids."""
        capacity = self._generator.engine.network.capacity
        room = capacity - min(self._options["max_new_tokens"], capacity // 2)
        ids = self._template.encode(self._system + said)
        while len(ids) > room and len(said) > 1:
            said = said[2:]
            ids = self._template.encode(self._system + said)
        return said, ids


def _say(line: str) -> None:
    click.echo(f"neox-ja: {line}", err=True)


def _say_again(error: UnicodeDecodeError) -> None:
    """Of a line that was typed: a terminal may delete half a character."""
    byte = error.object[error.start]
    _say(f"that was not {error.encoding} (byte {byte:#04x}); type it again")


def _lines() -> Iterator[str]:
    """The lines of standard input that are not blank."""
    if sys.stdin.isatty() and sys.stdout.isatty():  # else `input` keeps half a character for ever
        with contextlib.suppress(ImportError):  # Windows has none
            import readline  # noqa: F401  # arrow keys and history, for `input`

        while True:
            try:
                line = input("> ")
            except EOFError:
                click.echo()
                return
            except UnicodeDecodeError as error:
                _say_again(error)
                continue
            if line.strip():
                yield line.strip()
    for number, data in enumerate(sys.stdin.buffer, start=1):
        try:
            line = data.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            if sys.stdin.isatty():
                _say_again(error)
                continue
            raise click.UsageError(
                f"line {number} of standard input is not UTF-8 (byte {data[error.start]:#04x})"
            ) from error
        if line:
            yield line
