"""JSON of strangers: values, objects, and the indices that name files of weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gpt_neox_japanese.checks import short_repr
from gpt_neox_japanese.errors import CheckpointError, NeoXJapaneseError
from gpt_neox_japanese.files.regular_files import check_regular, is_plain_name
from gpt_neox_japanese.files.remote import AnyPath

__all__ = ["parse_json", "read_index", "read_object"]

_MODEL_DIRECTORY = (
    "a model is a directory with config.json, model.safetensors, vocab.txt and emoji.json"
)

# An escape in a string; the group is half of a surrogate pair, without the other half beside it.
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F])|.)"
)


def parse_json(text: str) -> Any:
    """The value that JSON spells, with strings that can be written into a file again.

    Args:
        text: JSON.

    Raises:
        json.JSONDecodeError: (a `ValueError`) It is none, or half of a surrogate pair is in it.
        ValueError: A number has thousands of digits.
        RecursionError: It is nested too deeply.
    """
    value = json.loads(text)
    for escape in _ESCAPE.finditer(text):
        if escape[1]:
            raise json.JSONDecodeError("Half of a surrogate pair", text, escape.start())
    return value


def read_object(
    path: AnyPath,
    error: type[NeoXJapaneseError] = CheckpointError,
    remedy: str = _MODEL_DIRECTORY,
) -> dict[str, Any]:
    """The JSON object that a file holds, such as `config.json`.

    Args:
        path: The file.
        error: What is raised.
        remedy: What to do about a file that is missing or broken.

    Raises:
        error: The file cannot be read or holds something else.
        RemoteError: It is elsewhere, and nobody answers.
    """
    if isinstance(path, Path):
        check_regular(path, error)
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except OSError as reason:
        raise error(f"cannot read {str(path)!r}: {reason.strerror or reason}; {remedy}") from reason
    except (ValueError, RecursionError) as reason:
        raise error(f"{str(path)!r} is not JSON: {reason}; {remedy}") from reason
    if not isinstance(value, dict):
        raise error(f"{str(path)!r} must hold a JSON object; {remedy}")
    return value


def read_index(path: Path) -> list[Path]:
    """The weight files that an index of shards names, each once, in order.

    Args:
        path: The index, such as `model.safetensors.index.json`.

    Raises:
        CheckpointError: It is no index, or names a file that does not lie beside it.
    """
    index = read_object(path)
    for name in ("metadata", "weight_map"):  # transformers needs the first too
        if not isinstance(index.get(name), dict):
            raise CheckpointError(f"{str(path)!r} has no {name}; copy or download it again")
    shards = index["weight_map"]
    for name in shards.values():
        if not is_plain_name(name):
            raise CheckpointError(
                f"{str(path)!r} names the weight file {short_repr(name)}; weight files must lie"
                " beside their index and be named without a directory"
            )
        check_regular(path.parent / name)
    return [path.parent / name for name in sorted(set(shards.values()))]
