"""Options of a transformers tokenizer: checked when it is made, when one is assigned, in a call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TokenizersBackend

from gpt_neox_japanese.checks import check_bool, check_integer, one_line, short_repr
from gpt_neox_japanese.errors import TokenizationError
from gpt_neox_japanese.tokenizer.vocabulary import VOCAB_FILE

__all__ = ["CheckedTokenizer", "check_options"]

_FLAGS = {"do_clean_text", "legacy", "split_special_tokens"}
_UNSUPPORTED_FLAGS = {"add_bos_token", "add_eos_token"}
_SIDES = {"padding_side", "truncation_side"}
_LENGTHS = {"model_max_length", "max_len"}
_CHECKED = {"model_input_names", "chat_template"}.union(
    _FLAGS, _UNSUPPORTED_FLAGS, _SIDES, _LENGTHS
)

_LONGEST_NAME = 60  # of a chat template


class CheckedTokenizer(TokenizersBackend):
    """A tokenizer whose options make sense, whenever they are given.

    Raises:
        TokenizationError: One does not, when it is assigned or in a call.
    """

    def __setattr__(self, key: str, value: Any) -> None:
        if key in _CHECKED:
            check_options({key: value})
        if key == "model_max_length" and value is not None:
            value = int(value)  # one of NumPy could not be saved
        super().__setattr__(key, value)  # type: ignore[no-untyped-call]

    def _get_padding_truncation_strategies(self, *args: Any, **kwargs: Any) -> Any:
        for name in ("max_length", "pad_to_multiple_of"):
            if kwargs.get(name) is not None:
                check_integer(name, kwargs[name], TokenizationError, minimum=0)
        return super()._get_padding_truncation_strategies(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _pad(  # type: ignore[override]  # transformers gives all of it by name
        self, encoded_inputs: Any, *, pad_to_multiple_of: int | None = None, **kwargs: Any
    ) -> Any:
        # Of `pad` alone, which does not ask above, and would divide by it.
        if pad_to_multiple_of is not None:
            pad_to_multiple_of = check_integer(
                "pad_to_multiple_of", pad_to_multiple_of, TokenizationError, minimum=1
            )
        return super()._pad(encoded_inputs, pad_to_multiple_of=pad_to_multiple_of, **kwargs)


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
