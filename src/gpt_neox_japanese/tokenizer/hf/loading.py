"""What goes wrong while a tokenizer of transformers is made, told as what is missing or broken."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from typing import Any

from transformers.utils.hub import cached_file

from gpt_neox_japanese.checks import one_line
from gpt_neox_japanese.errors import NeoXJapaneseError, VocabularyError

__all__ = ["explain_load_errors", "require_files"]

# What says which file of the Hub is meant, and how to get it.
_HUB_ARGUMENTS = {"cache_dir", "local_files_only", "proxies", "revision", "subfolder", "token"}


class _NoFileError(VocabularyError):
    """A tokenizer without one of its files."""


def require_files(
    paths: Mapping[str, str | PathLike[str] | None], names: Mapping[str, str], place: str | None
) -> None:
    """Refuse a tokenizer whose files transformers has not found: it leaves their paths None.

    Args:
        paths: Argument of the tokenizer → path of a file.
        names: Argument of the tokenizer → what the file is called.
        place: The directory or Hub id that was searched, if any.

    Raises:
        VocabularyError: A path is None.
    """
    for argument, path in paths.items():
        if path is None:
            raise _NoFileError(
                f"no {names[argument]}{f' in {place!r}' if place else ''}; put it there, or pass"
                f" {argument}=PATH"
            )


@contextmanager
def explain_load_errors(
    source: str | PathLike[str], names: Mapping[str, str], arguments: Mapping[str, Any]
) -> Iterator[None]:
    """Around `from_pretrained` of transformers: make errors of ours of what it stumbles over.

    Args:
        source: A directory, or a Hub id.
        names: As of `require_files`.
        arguments: Those of `from_pretrained`.

    Yields:
        Once, to load.

    Raises:
        VocabularyError: A file is missing or broken.
        OSError: There is no such directory or Hub id, or the Hub cannot be reached.
    """
    try:
        yield
    except _NoFileError:
        if not os.path.isdir(source):
            # Files of the Hub are asked for silently, because most are optional. Not these.
            asked = {name: arguments[name] for name in _HUB_ARGUMENTS & arguments.keys()}
            for file in names.values():
                cached_file(str(source), file, **asked)
        raise
    except (NeoXJapaneseError, OSError, ImportError, MemoryError):
        raise  # it says what is wrong, or no file is to blame
    except Exception as error:  # what only transformers stumbles over in a file
        raise VocabularyError(
            f"{str(source)!r} cannot be loaded: {type(error).__name__}: {one_line(error)}"
        ) from error
