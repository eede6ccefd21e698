"""Checks of what callers pass, where it comes in: nothing unchecked reaches compiled code.

A bool is no number here: `max_new_tokens=True` is a mistake.
"""

from __future__ import annotations

import math
import numbers
import operator
import reprlib
from collections.abc import Callable
from typing import Any

import numpy as np

from gpt_neox_japanese.errors import NeoXJapaneseError

__all__ = [
    "check_bool",
    "check_ids",
    "check_integer",
    "check_number",
    "check_text",
    "is_count",
    "is_finite",
    "one_line",
    "short_repr",
]


def check_integer(
    name: str,
    value: Any,
    error: type[NeoXJapaneseError],
    *,
    minimum: int,
    maximum: int | None = None,
) -> int:
    """Check an integer.

    Args:
        name: What the caller calls it.
        value: Any object; integers of NumPy and PyTorch are integers.
        error: What is raised.
        minimum: The least that is allowed.
        maximum: The most that is allowed; None for no bound.

    Returns:
        `value` as Python's int.

    Raises:
        error: It is no integer, or out of range.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < minimum or (maximum is not None and number > maximum):
        range_ = f"{minimum} or more" if maximum is None else f"from {minimum} to {maximum}"
        raise error(f"{name} is {short_repr(value)}; it must be an integer, {range_}")
    return number


def check_number(
    name: str,
    value: Any,
    error: type[NeoXJapaneseError],
    holds: Callable[[float], bool],
    range_: str,
) -> float:
    """Check a number.

    Args:
        name: What the caller calls it.
        value: Any object.
        error: What is raised.
        holds: Whether a number is in range; it is not asked about NaN.
        range_: The range, in words.

    Returns:
        `value` as Python's float.

    Raises:
        error: It is no number, or out of range.
    """
    try:
        number = float(value) if isinstance(value, numbers.Real) else math.nan
    except OverflowError:  # an integer of 400 digits
        number = math.nan
    if isinstance(value, bool) or math.isnan(number) or not holds(number):
        raise error(f"{name} is {short_repr(value)}; it must be {range_}")
    return number


def check_bool(name: str, value: Any, error: type[NeoXJapaneseError]) -> bool:
    """Check a bool.

    Args:
        name: What the caller calls it.
        value: Any object.
        error: What is raised.

    Returns:
        `value`.

    Raises:
        error: It is something else.
    """
    if not isinstance(value, bool):
        raise error(f"{name} is {short_repr(value)}; it must be True or False")
    return value


def check_text(name: str, value: Any, error: type[NeoXJapaneseError]) -> str:
    """Check a string.

    Args:
        name: What the caller calls it.
        value: Any object.
        error: What is raised.

    Returns:
        `value`.

    Raises:
        error: It is none.
    """
    if not isinstance(value, str):
        raise error(f"{name} is {short_repr(value)}; it must be a string")
    return value


def check_ids(name: str, values: Any, error: type[NeoXJapaneseError], vocab_size: int) -> list[int]:
    """Check token ids.

    Args:
        name: Whose ids they are.
        values: A sequence of integers, or an integer array of one dimension.
        error: What is raised.
        vocab_size: Ids are below it.

    Returns:
        Python's ints.

    Raises:
        error: It is no sequence, or one of its members is no id.
    """
    try:
        # An array of no dimensions says that it can be iterated over, and cannot.
        members = None if isinstance(values, (str, bytes)) else iter(values)
    except TypeError:
        members = None
    if members is None:
        raise error(f"{name} is {short_repr(values)}; it must be a list of token ids")
    ids = []
    for value in values.tolist() if isinstance(values, np.ndarray) else members:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise error(f"{name} holds {short_repr(value)}, which is no token id")
        token_id = int(value)
        if not 0 <= token_id < vocab_size:
            raise error(f"{name} holds id {short_repr(token_id)}; ids are 0 to {vocab_size - 1}")
        ids.append(token_id)
    return ids


def is_count(value: Any) -> bool:
    """Whether a value that a file holds is a number of things, small enough to compute with.

    Args:
        value: Any value, such as JSON gives.

    Returns:
        True for an integer from 0 to 2**63 - 1.
    """
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def is_finite(value: Any) -> bool:
    """Whether a value that a file holds is a number that can be computed with.

    Args:
        value: Any value, such as JSON gives.

    Returns:
        True for an integer or a float that is neither NaN nor infinite, nor beyond a float.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of 400 digits
        return False


def short_repr(value: object) -> str:
    """Write a value as Python code, shortened to fit a line of a message.

    Args:
        value: Any object.

    Returns:
        One line; of a huge number only what it is.
    """
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of 5,000 digits
        return f"a huge {type(value).__name__}"


def one_line(error: Exception) -> str:
    """What an error of another library says, as part of a message of ours.

    Args:
        error: Any.

    Returns:
        One line of at most 300 characters; the error's class where it says nothing.
    """
    return " ".join(str(error).split())[:300] or type(error).__name__
