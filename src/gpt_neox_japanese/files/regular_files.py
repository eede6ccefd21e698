"""Which names and which kinds of files are taken from a stranger, in one place.

A path that the user gives, and every link in a directory that he names, is his own choice and is
followed: the Hub's cache is made of links, and so are directories of DVC, Nix and data drives. What
is written *inside* a file is not his choice: it can only name files that lie beside it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeGuard

from gpt_neox_japanese.errors import CheckpointError, NeoXJapaneseError

__all__ = ["check_own_file", "check_regular", "is_plain_name"]


def is_plain_name(name: Any) -> TypeGuard[str]:
    """Whether a value names a file beside the one that it stands in, on every system.

    Args:
        name: Any value, such as JSON gives.

    Returns:
        False for what is no string, for a path with directories or a drive, and for `..`.
    """
    if not isinstance(name, str) or name in {"", ".", ".."}:
        return False
    return not any(character in "/\\:\0" for character in name)


def check_regular(path: Path, error: type[NeoXJapaneseError] = CheckpointError) -> None:
    """Refuse what is there and is neither a file nor a link to one: a pipe would be waited for.

    Args:
        path: May be missing.
        error: What is raised.

    Raises:
        error: It is a pipe, a device, a socket or a directory.
    """
    if os.path.exists(path) and not path.is_file():
        raise error(f"{str(path)!r} is not a regular file; put a real one there")


def check_own_file(path: Path, error: type[NeoXJapaneseError]) -> None:
    """Refuse to write into what may be a file elsewhere.

    Args:
        path: Of a file that is to be cut, appended to or removed; may be missing.
        error: What is raised.

    Raises:
        error: It is a link, has a second name elsewhere, or is no file.
    """
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_file() or path.stat().st_nlink > 1:
        raise error(
            f"{str(path)!r} is a link or no regular file, and is not written into; copy the file"
            " itself there, or remove it"
        )
