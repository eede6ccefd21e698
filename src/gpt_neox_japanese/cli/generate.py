"""`neox-ja generate`: continue a text, shown as it is written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from gpt_neox_japanese.cli.options.help_sections import GroupedCommand
from gpt_neox_japanese.cli.options.number_types import Whole
from gpt_neox_japanese.cli.options.sampling import CHOICE, LENGTH, OUTPUT, sampling_options
from gpt_neox_japanese.cli.options.shared import generator_options
from gpt_neox_japanese.cli.options.stdin import TEXT, read_text
from gpt_neox_japanese.inference.sampling.params import nth_seed

if TYPE_CHECKING:
    from gpt_neox_japanese.inference.generator import TextGenerator
    from gpt_neox_japanese.inference.outputs import TextChunk

__all__ = ["command"]

_MAX_SIDE_BY_SIDE = 8  # continuations that are written at the same time


@click.command(cls=GroupedCommand)
@click.argument("prompt", required=False, type=TEXT)
@LENGTH(
    "--max-new-tokens",
    type=Whole(min=1),
    default=200,
    show_default=True,
    help="How many tokens to write at most.",
)
@LENGTH(
    "--stop", type=TEXT, multiple=True, help="End before this text. May be given several times."
)
@LENGTH(
    "--end-at-sentence",
    is_flag=True,
    help="Drop a last sentence that --max-new-tokens broke off.",
)
@LENGTH(
    "--num-return-sequences",
    type=Whole(1, 1000),
    default=1,
    show_default=True,
    help="How many continuations. With --json each is a line; else standard error counts them.",
)
@sampling_options
@CHOICE("--seed", type=Whole(min=0), help="The same seed writes the same text.")
@OUTPUT(
    "--echo/--no-echo",
    default=None,
    help="Show the prompt before its continuation.  [default: echo, but not with --json]",
)
@OUTPUT("--json", "as_json", is_flag=True, help="One JSON object a line, when complete.")
@OUTPUT(
    "--logprobs",
    type=Whole(),
    help="With --json, log-probabilities of the tokens, and of this many likeliest beside each.",
)
@OUTPUT("--verbose", is_flag=True, help="Tell on standard error what runs, and how fast.")
@generator_options
def command(
    prompt: str | None,
    model: str,
    max_new_tokens: int,
    num_return_sequences: int,
    stop: tuple[str, ...],
    end_at_sentence: bool,
    seed: int | None,
    dtype: str,
    device: str,
    threads: int | None,
    prompt_lookup: bool,
    echo: bool | None,
    as_json: bool,
    verbose: bool,
    **sampling: Any,
) -> None:
    """Continue PROMPT (or standard input, for `-`) with a language model.

    Sampling options that are not given are the model's own (generation_config.json); where that
    says nothing of sampling, temperature 0.8 and top-p 0.95.
    """
    if sampling["logprobs"] is not None and not as_json:
        raise click.UsageError("--logprobs shows nothing without --json; give both")
    text = read_text(prompt, "prompt")
    if not text:
        raise click.UsageError("the prompt is empty; write at least one character")

    from gpt_neox_japanese.inference.generator import TextGenerator
    from gpt_neox_japanese.inference.outputs import Completion

    start = time.perf_counter()
    generator = TextGenerator.from_pretrained(
        model,
        dtype=dtype,
        device=device,
        slots=min(num_return_sequences, _MAX_SIDE_BY_SIDE),
        threads=threads,
        prompt_lookup=prompt_lookup,
    )
    seeds = [nth_seed(seed, number) for number in range(num_return_sequences)]
    # All are begun, and so checked, before anything is shown.
    streams = [
        generator.stream_details(
            text,
            max_new_tokens=max_new_tokens,
            stop=stop,
            end_at_sentence=end_at_sentence,
            seed=each,
            echo=not as_json if echo is None else echo,
            **{name: value for name, value in sampling.items() if value is not None},
        )
        for each in seeds
    ]
    clock = _Clock(generator, model, time.perf_counter() - start) if verbose else None
    for number, (stream, each) in enumerate(zip(streams, seeds, strict=True), start=1):
        pieces = clock.timed(stream) if clock else stream
        if as_json:
            completion = Completion.from_chunks(
                pieces, has_logprobs=sampling["logprobs"] is not None
            )
            result = {"prompt": text, "seed": each, **asdict(completion)}
            click.echo(json.dumps(result, ensure_ascii=False))
        else:
            if num_return_sequences > 1:
                _say(f"text {number} of {num_return_sequences}")
            _show(pieces)
        if stream.context_is_full:
            _say("the model's context is full: the text ends before --max-new-tokens")
    if clock:
        clock.tell()


def _show(pieces: Iterator[TextChunk]) -> None:
    """Write a text as it comes; a prompt before it with the first token.

    Until then, what has to be compiled is told on standard error, which may be the same terminal.
    """
    held = ""
    for piece in pieces:
        held += piece.text
        if piece.tokens:
            click.echo(held, nl=False)
            held = ""
    click.echo(held)


class _Clock:
    """Says on standard error what runs, and in the end how fast it was."""

    def __init__(self, generator: TextGenerator, model: str, seconds: float) -> None:
        _say(f"model {model}, ready after {seconds:.2f} s")
        _say(generator.engine.description)
        self._tokens = 0
        self._start = time.perf_counter()
        self._first: float | None = None

    def timed(self, pieces: Iterator[TextChunk]) -> Iterator[TextChunk]:
        """Pass pieces on, and count their tokens."""
        for piece in pieces:
            if piece.tokens and self._first is None:
                self._first = time.perf_counter() - self._start
            self._tokens += len(piece.tokens)
            yield piece

    def tell(self) -> None:
        """How many tokens were written in which time."""
        seconds = time.perf_counter() - self._start
        first = "" if self._first is None else f", the first after {self._first:.2f} s"
        _say(
            f"{self._tokens} tokens in {seconds:.2f} s, {self._tokens / seconds:.1f} tokens/s"
            f"{first}"
        )


def _say(line: str) -> None:
    click.echo(f"neox-ja: {line}", err=True)
