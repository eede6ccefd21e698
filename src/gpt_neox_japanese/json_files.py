"""The JSON files of a model directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpt_neox_japanese.errors import CheckpointError

__all__ = ["read_object"]


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds, such as `config.json`.

    Raises:
        CheckpointError: The file cannot be read or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"cannot read {str(path)!r}: {error.strerror or error}; a model is a directory with"
            " config.json, model.safetensors, vocab.txt and emoji.json"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{str(path)!r} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{str(path)!r} must hold a JSON object")
    return value
