"""What `config.json` may say: one table for the engine, the model classes and `convert`.

Whoever builds a network from a configuration comes through here first, so that all of them give the
same judgement. Fields that are not in the table decide nothing about the network.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gpt_neox_japanese.checks import check_bool, check_integer, check_number, short_repr
from gpt_neox_japanese.errors import CheckpointError, NeoXJapaneseError
from gpt_neox_japanese.files.json_files import read_object

__all__ = [
    "ROTARY_KEYS",
    "check_config",
    "check_no_code",
    "read_config",
    "read_generation_config",
    "refuse_adapter",
    "rotary_parameters",
    "sizes",
]

_Error = type[NeoXJapaneseError]
_Check = Callable[[str, Any, _Error], object]

ROTARY_KEYS = {
    "rotary_pct": "partial_rotary_factor",
    "partial_rotary_factor": "partial_rotary_factor",
    "rotary_emb_base": "rope_theta",
    "rope_theta": "rope_theta",
}
"""Each way to give a rotary number, and its key in `rope_parameters`."""

MODEL_TYPE = "gpt_neox_japanese"
_DEFAULT_SIZES = {
    "vocab_size": 32000,
    "hidden_size": 2560,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_multiple_size": 4,
    "max_position_embeddings": 2048,
}
# Whole turns of more positions are no longer exact in the engine's rotary tables.
_MAX_POSITIONS = 2**20


def _integer(minimum: int, maximum: int) -> _Check:
    return partial(check_integer, minimum=minimum, maximum=maximum)


def _number(minimum: float, maximum: float) -> _Check:
    range_ = f"a number from {minimum:g} to {maximum:g}"
    return partial(check_number, holds=lambda n: minimum <= n <= maximum, range_=range_)


def _optional(check: _Check) -> _Check:
    return lambda name, value, error: value is None or check(name, value, error)


def _token_ids(name: str, value: Any, error: _Error) -> None:
    for one in value if isinstance(value, list) else [value]:
        _optional(_TOKEN_ID)(name, one, error)


def _model_type(name: str, value: Any, error: _Error) -> None:
    if value != MODEL_TYPE:
        raise error(f"{name} is {short_repr(value)}; this package runs {MODEL_TYPE!r} only")


def _dtype(name: str, value: Any, error: _Error) -> None:
    if value is not None and str(value).removeprefix("torch.") not in _DTYPES:
        raise error(f"{name} is {short_repr(value)}; it must be one of {', '.join(_DTYPES)}")


def _string(name: str, value: Any, error: _Error) -> None:
    if not isinstance(value, str):
        raise error(f"{name} is {short_repr(value)}; it must be a string")


def _quantization(name: str, value: Any, error: _Error) -> None:
    # In a configuration that transformers has read, it is an object of its own.
    if not (value is None or isinstance(value, Mapping) or hasattr(value, "to_dict")):
        raise error(f"{name} is {short_repr(value)}; it must be an object")


_DTYPES = ("float32", "bfloat16", "float16", "float64", "auto")
_TOKEN_ID = _integer(-1, 2**31 - 1)
_PROBABILITY: _Check = partial(
    check_number, holds=lambda n: 0 <= n < 1, range_="a probability, below 1"
)
_ROTARY_BASE = _number(1, 1e12)
_ROTARY_FRACTION: _Check = partial(
    check_number,
    holds=lambda n: 0 < n <= 1,
    range_="in (0, 1]: the fraction of each head's channels to rotate",
)

# Building a model takes memory for every layer even before there are weights, so a damaged or
# hostile file must not name any number it likes.
_FIELDS: dict[str, _Check] = {
    "model_type": _model_type,
    "dtype": _dtype,
    "torch_dtype": _dtype,
    "vocab_size": _integer(1, 2**24),
    "hidden_size": _integer(1, 2**18),
    "num_hidden_layers": _integer(1, 2**12),
    "num_attention_heads": _integer(1, 2**18),
    "intermediate_multiple_size": _integer(1, 2**10),
    "max_position_embeddings": _integer(1, _MAX_POSITIONS),
    "num_labels": _optional(_integer(0, 2**17)),  # each has a name in memory
    "hidden_act": _string,
    "layer_norm_eps": _number(1e-20, 1),
    "initializer_range": _number(0, 1000),
    "attention_dropout": _PROBABILITY,
    "hidden_dropout": _PROBABILITY,
    "rotary_pct": _optional(_ROTARY_FRACTION),
    "rotary_emb_base": _optional(_ROTARY_BASE),
    "partial_rotary_factor": _optional(_ROTARY_FRACTION),
    "rope_theta": _optional(_ROTARY_BASE),
    "bos_token_id": _optional(_TOKEN_ID),
    "eos_token_id": _token_ids,
    "pad_token_id": _optional(_TOKEN_ID),
    "use_cache": check_bool,
    "is_decoder": check_bool,
    "tie_word_embeddings": check_bool,
    "quantization_config": _quantization,
}

# Fields by which transformers would take code or weights from elsewhere.
_CODE = ("attn_implementation", "experts_implementation")
_ELSEWHERE = ("transformers_weights", "fusion_config", "distributed_config", "per_layer_config")


def read_config(directory: Path) -> dict[str, Any]:
    """Read and check `config.json`.

    Args:
        directory: Of a model.

    Returns:
        What it says.

    Raises:
        CheckpointError: It is missing or broken, makes no sense, asks for code from elsewhere, or
            is beside an adapter.
    """
    refuse_adapter(directory)
    path = directory / "config.json"
    config = read_object(path)
    check_config(config, f"{str(path)!r}: ")
    check_no_code(config, f"{str(path)!r}: ")
    return config


def refuse_adapter(directory: Path) -> None:
    """Refuse the directory of an adapter where it would not be applied.

    Args:
        directory: Of a model, as it should be.

    Raises:
        CheckpointError: It holds an `adapter_config.json`.
    """
    if os.path.lexists(directory / "adapter_config.json"):
        merged = directory / "merged"
        remedy = (
            f"name the model in {str(merged)!r}, in which it is merged"
            if (merged / "config.json").is_file()
            else "merge it into the model that it adapts: neox-ja merge DIRECTORY --output merged"
        )
        raise CheckpointError(f"{str(directory)!r} holds an adapter, not a whole model; {remedy}")


def read_generation_config(directory: Path) -> dict[str, Any]:
    """Read `generation_config.json`, and check of it what config.json may say too.

    Args:
        directory: Of a model.

    Returns:
        What it says; nothing if there is none.

    Raises:
        CheckpointError: It is broken or makes no sense.
    """
    path = directory / "generation_config.json"
    if not path.exists():
        return {}
    generation = read_object(path)
    check_config(generation, f"{str(path)!r}: ")
    return generation


def check_config(
    config: Mapping[str, Any], where: str, error: type[NeoXJapaneseError] = CheckpointError
) -> None:
    """Check every field of a configuration that decides what a network computes.

    Args:
        config: What config.json says, or the fields of a config object.
        where: Before the name of a field in messages, such as "config.json: ".
        error: What is raised.

    Raises:
        error: A field has a type or value that makes no sense, or two contradict each other.
    """
    for name, check in _FIELDS.items():
        if name in config:
            check(f"{where}{name}", config[name], error)
    _check_inner_dtypes(config, where, error)
    rope = rotary_parameters(config, where, error)
    hidden, heads = (sizes(config)[name] for name in ("hidden_size", "num_attention_heads"))
    if hidden % heads:
        raise error(
            f"{where}hidden_size is {hidden}, not divisible by num_attention_heads, {heads};"
            f" choose a multiple, such as {heads * max(1, hidden // heads)}"
        )
    fraction = rope["partial_rotary_factor"]
    rotated = int(hidden // heads * fraction)
    if rotated == 0 or rotated % 2:
        raise error(
            f"{where}rotary_pct is {fraction}, which rotates {rotated} of the {hidden // heads}"
            " channels of a head; rotation works on pairs, so choose rotary_pct, hidden_size and"
            " num_attention_heads that give an even number above zero"
        )


def _check_inner_dtypes(config: Mapping[str, Any], where: str, error: _Error) -> None:
    """Check `dtype` in objects within objects: transformers writes it anew wherever it stands."""
    waiting = [(name, value) for name, value in config.items() if isinstance(value, dict)]
    seen: set[int] = set()  # an object that a caller gives may be within itself
    while waiting:
        name, inner = waiting.pop()
        if id(inner) in seen:
            continue
        seen.add(id(inner))
        dtype = inner.get("dtype")
        # A number may be the id of a token of this name, and a dict has one dtype for each part.
        if isinstance(dtype, list | float):
            raise error(
                f"{where}{name} has the dtype {short_repr(dtype)}; it must be a string, or left out"
            )
        waiting += [
            (f"{name}.{key}", part) for key, part in inner.items() if isinstance(part, dict)
        ]


def sizes(config: Mapping[str, Any]) -> dict[str, int]:
    """The sizes of a network, transformers' defaults where the configuration is silent.

    Args:
        config: What config.json says; `check_config` has passed it.

    Returns:
        Each by its name in config.json.
    """
    return {name: config.get(name, default) for name, default in _DEFAULT_SIZES.items()}


def check_no_code(config: Mapping[str, Any], where: str) -> None:
    """Refuse a configuration file by which other code or files would be taken.

    What a caller passes as an argument is his own choice, and not looked at here.

    Args:
        config: What config.json says.
        where: Before the name of a field in messages, such as "config.json: ".

    Raises:
        CheckpointError: It names a kernel of the Hub, or weights that are not the directory's.
    """
    for name in (f"{start}{name}" for name in _CODE for start in ("", "_")):
        value = config.get(name)
        if value is not None and not (isinstance(value, str) and value.replace("_", "").isalnum()):
            raise CheckpointError(
                f"{where}{name} is {short_repr(value)}; a configuration may only name what"
                " transformers has, such as 'sdpa': code from elsewhere is the caller's to choose"
            )
    for name in _ELSEWHERE:
        if config.get(name) is not None:
            raise CheckpointError(
                f"{where}{name} is {short_repr(config[name])}; this model has no such field:"
                " remove it"
            )


def rotary_parameters(
    config: Mapping[str, Any], where: str, error: type[NeoXJapaneseError] = CheckpointError
) -> dict[str, Any]:
    """Gather the rotary numbers of a configuration in transformers 4's or 5's spelling.

    Args:
        config: What config.json says.
        where: Before the name of a field in messages, such as "config.json: ".
        error: What is raised.

    Returns:
        What `rope_parameters` of transformers 5 would be: with `rope_type`, `rope_theta` and
        `partial_rotary_factor`, and what other types need.

    Raises:
        error: A number makes no sense, or two spellings contradict each other.
    """
    given = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(given, Mapping):
        raise error(f"{where}rope_parameters is {short_repr(given)}; it must be an object")
    rope = {name: value for name, value in given.items() if value is not None}
    for argument, key in ROTARY_KEYS.items():
        value = config.get(argument)
        if value is None:
            continue
        _FIELDS[argument](f"{where}{argument}", value, error)
        if rope.setdefault(key, value) != value:
            raise error(
                f"{where}{argument}={value!r} contradicts rope_parameters[{key!r}]="
                f"{short_repr(rope[key])}; give one of them, or the same value twice"
            )
    rope = {"rope_type": rope.get("type", "default"), **rope}
    rope = {"rope_theta": 10000, "partial_rotary_factor": 1.0, **rope}
    _string(f"{where}rope_parameters: rope_type", rope["rope_type"], error)
    for key in ("rope_theta", "partial_rotary_factor"):
        _FIELDS[key](f"{where}{key}", rope[key], error)
    for key, value in rope.items():
        if key in ("type", "rope_type") or isinstance(value, bool):
            continue
        for number in value if isinstance(value, list) else [value]:
            _number(-1e12, 1e12)(f"{where}rope_parameters: {key}", number, error)
    return rope
