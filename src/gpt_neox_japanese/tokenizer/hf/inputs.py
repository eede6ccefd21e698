"""The many ways to pass texts to a transformers tokenizer, sorted out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from gpt_neox_japanese.errors import TokenizationError

__all__ = ["Text", "read_samples"]

Text = str | Sequence[str]
"""A string, or the words of one."""


def read_samples(
    text: Any, text_pair: Any, *, split_into_words: bool
) -> tuple[list[tuple[Text, ...]], bool]:
    """Sort out the many ways to pass texts.

    Args:
        text: A text, a list of texts, or a list of pairs of texts.
        text_pair: What stands second in each pair; of the same shape as `text`.
        split_into_words: Texts are lists of words.

    Returns:
        The samples, each of one text or two, and whether they were passed as a list.

    Raises:
        TokenizationError: A value is no text, or the lists differ in length.
    """
    is_text = _is_words if split_into_words else _is_string
    if is_text(text):
        return [_sample(text, text_pair, is_text)], False
    if not isinstance(text, list | tuple):
        _refuse(text)
    if text_pair is None:
        return [(item,) if is_text(item) else _pair(item, is_text) for item in text], True
    if not isinstance(text_pair, list | tuple) or len(text_pair) != len(text):
        raise TokenizationError(
            f"{len(text)} texts need a list of as many second texts, not {text_pair!r:.60}"
        )
    return [_sample(*item, is_text) for item in zip(text, text_pair, strict=True)], True


def _sample(first: Any, second: Any, is_text: Callable[[Any], bool]) -> tuple[Text, ...]:
    return (first,) if second is None and is_text(first) else _pair((first, second), is_text)


def _pair(item: Any, is_text: Callable[[Any], bool]) -> tuple[Text, ...]:
    if not isinstance(item, list | tuple) or len(item) != 2:
        _refuse(item)
    for text in item:
        if not is_text(text):
            _refuse(text)
    return tuple(item)


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_words(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(word, str) for word in value)


def _refuse(value: Any) -> NoReturn:
    raise TokenizationError(
        f"cannot encode {value!r:.60} ({type(value).__name__}); pass a string, a list of strings or"
        " of pairs of strings, or with is_split_into_words=True lists of words"
    )
