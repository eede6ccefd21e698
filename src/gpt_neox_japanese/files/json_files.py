"""The files of a model directory: `config.json` and its like, and which file is where.

A path that the user gives, and every link in the directory that he names, is his own choice and is
followed: the Hub's cache is made of links, and so are directories of DVC, Nix and data drives. What
is written *inside* a file is not his choice: an index can only name files that lie beside it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gpt_neox_japanese.checks import short_repr
from gpt_neox_japanese.errors import CheckpointError

__all__ = ["check_regular", "read_index", "read_object"]


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds, such as `config.json`.

    Args:
        path: The file.

    Raises:
        CheckpointError: The file cannot be read or holds something else.
    """
    check_regular(path)
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


def read_index(path: Path) -> list[Path]:
    """The weight files that an index of shards names, each once, in order.

    Args:
        path: The index, such as `model.safetensors.index.json`.

    Raises:
        CheckpointError: It is no index, or names a file that does not lie beside it.
    """
    shards = read_object(path).get("weight_map")
    if not isinstance(shards, dict):
        raise CheckpointError(f"{str(path)!r} has no weight_map; copy or download it again")
    for name in shards.values():
        plain = isinstance(name, str) and name.isprintable() and Path(name).name == name
        if not plain or name in {"", ".."}:
            raise CheckpointError(
                f"{str(path)!r} names the weight file {short_repr(name)}; weight files must lie"
                " beside their index and be named without a directory"
            )
        check_regular(path.parent / name)
    return [path.parent / name for name in sorted(set(shards.values()))]


def check_regular(path: Path) -> None:
    """Refuse what is there and is neither a file nor a link to one: a pipe would be waited for.

    Args:
        path: May be missing.

    Raises:
        CheckpointError: It is a pipe, a device, a socket or a directory.
    """
    if os.path.exists(path) and not path.is_file():
        raise CheckpointError(f"{str(path)!r} is not a regular file; put a real one there")
