"""What goes wrong while a tokenizer of transformers is made, told as what is missing or broken."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from gpt_neox_japanese.checks import check_bool, check_integer, one_line, short_repr
from gpt_neox_japanese.errors import NeoXJapaneseError, TokenizationError, VocabularyError
from gpt_neox_japanese.tokenizer.vocabulary import VOCAB_FILE

__all__ = ["CHECKED_OPTIONS", "check_options", "explain_load_errors", "require_files"]

_FLAGS = {"do_clean_text", "legacy", "split_special_tokens"}
_UNSUPPORTED_FLAGS = {"add_bos_token", "add_eos_token"}
_SIDES = {"padding_side", "truncation_side"}
_LENGTHS = {"model_max_length", "max_len"}
CHECKED_OPTIONS = {"model_input_names", "chat_template"}.union(
    _FLAGS, _UNSUPPORTED_FLAGS, _SIDES, _LENGTHS
)
"""Options whose values are checked, when a tokenizer is made and when one is assigned."""

# What says which file of the Hub is meant, and how to get it.
_HUB_ARGUMENTS = {"cache_dir", "local_files_only", "proxies", "revision", "subfolder", "token"}

_LONGEST_NAME = 60  # of a chat template


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


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options with which a tokenizer could be made, but not be used or saved.

    Args:
        options: What the caller and `tokenizer_config.json` say.

    Raises:
        TokenizationError: An option has a type or value that makes no sense, or asks for what this
            tokenizer does not do.
    """
    for name, value in options.items():
        if name in _UNSUPPORTED_FLAGS and value:
            raise TokenizationError(
                f"{name}=True: this tokenizer adds nothing to a text; write the token into it"
            )
        if name in ("tokenizer_object", "gguf_file"):
            raise TokenizationError(f"{name}: this tokenizer is made of {VOCAB_FILE}; leave it out")
        if name in _FLAGS:
            check_bool(name, value, TokenizationError)
        if name in _SIDES and value not in ("left", "right"):
            raise TokenizationError(f"{name} is {short_repr(value)}; it must be 'left' or 'right'")
        if name in _LENGTHS and value is not None:
            check_integer(name, value, TokenizationError, minimum=1)
        if name == "model_input_names" and not _are_inputs(value):
            raise TokenizationError(
                f"{name} is {short_repr(value)}; it must be a list of names, and begin with"
                " 'input_ids'"
            )
        if name == "chat_template" and not _are_templates(value):
            raise TokenizationError(
                f"{name} is {short_repr(value)}; it must be a string, or strings by their names"
            )
        try:
            if name != "name_or_path":  # which is not saved
                json.dumps({name: value}, ensure_ascii=False, default=str).encode()
        except (TypeError, ValueError, RecursionError) as error:  # half of a surrogate pair, say
            raise TokenizationError(
                f"{short_repr(name)[1:-1]} cannot be saved: {one_line(error)}; leave it out"
            ) from error


def _are_inputs(names: object) -> bool:
    return (
        isinstance(names, list | tuple)
        and all(isinstance(name, str) for name in names)
        and names[:1] in (["input_ids"], ("input_ids",))
    )


def _are_templates(value: object) -> bool:
    """One template or none, or several in one of the two ways in which files have them."""
    if isinstance(value, list | tuple):
        fields = [each if isinstance(each, dict) else {} for each in value]
        return all(_is_template(each.get("name"), each.get("template")) for each in fields)
    if isinstance(value, dict):
        return all(_is_template(name, template) for name, template in value.items())
    return isinstance(value, str | None)


def _is_template(name: object, template: object) -> bool:
    """Whether it can be saved: of several, each is a file."""
    is_name = isinstance(name, str) and name == Path(name).name and 0 < len(name) <= _LONGEST_NAME
    return is_name and "\0" not in str(name) and isinstance(template, str)


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
