"""The cache's two names: `past_key_values`, and from transformers 5.24 on `cache`.

Here it is called `cache`. Callers may use either name with any version; what is returned, and what
is passed on to transformers, bears the name of the installed one.
"""

from __future__ import annotations

from typing import Any

from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils.generic import ModelOutput

__all__ = ["CACHE_NAME", "CACHE_NAMES", "cache_kwargs", "cache_of"]

CACHE_NAMES = ("cache", "past_key_values")
CACHE_NAME = next(
    name for name in CACHE_NAMES if name in BaseModelOutputWithPast.__dataclass_fields__
)
"""The one that the installed transformers uses."""


def cache_kwargs(cache: object) -> dict[str, Any]:
    """Return the cache as the keyword argument that the installed transformers knows.

    Args:
        cache: A cache, or None.

    Returns:
        `{"cache": cache}`, or `{"past_key_values": cache}` before transformers 5.24.
    """
    return {CACHE_NAME: cache}


def cache_of(outputs: ModelOutput) -> Any:
    """Return the cache among a model's outputs.

    Args:
        outputs: What a model of transformers returned.

    Returns:
        The cache, or None if the model returned none.
    """
    return getattr(outputs, CACHE_NAME)
