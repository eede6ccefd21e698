"""The options of sampling, one for each field of `SamplingParams`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from gpt_neox_japanese.cli.options.help_sections import options_of
from gpt_neox_japanese.cli.options.number_types import Real, Whole
from gpt_neox_japanese.inference.sampling.params import SamplingParams

__all__ = ["CHOICE", "LENGTH", "OUTPUT", "sampling_options"]

LENGTH = options_of("How much")
CHOICE = options_of("Sampling")
OUTPUT = options_of("What is shown")

# Where an option stands if not under "Sampling".
_SECTION = {"min_new_tokens": LENGTH}


def sampling_options(command: Any) -> Any:
    """Give a command an option for each field that has a line of help."""
    for field in reversed(fields(SamplingParams)):
        if field.metadata["help"]:
            command = _SECTION.get(field.name, CHOICE)(
                f"--{field.name.replace('_', '-')}",
                type=Whole() if field.type == "int" else Real(),
                help=field.metadata["help"],
            )(command)
    return command
