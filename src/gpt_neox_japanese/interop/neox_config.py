"""The configuration of EleutherAI/gpt-neox ↔ config.json: which of its models are ours.

gpt-neox is configured by one or more .yml files, which it copies into each checkpoint. An option
that they do not name has gpt-neox's own default, which is not always what this architecture has.
"""
# Methods of transformers carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.errors import StrictDataclassError

from gpt_neox_japanese.checks import short_repr
from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.files.model_config import read_config
from gpt_neox_japanese.files.regular_files import check_regular
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig

__all__ = [
    "config_from_options",
    "count_of",
    "options_from_config",
    "read_model_config",
    "read_options",
    "vocabulary_multiple",
]

# Option → gpt-neox's default, and the only value that this architecture has.
_FIXED: dict[str, tuple[object, object]] = {
    "norm": ("layernorm", "layernorm"),
    "pos_emb": ("learned", "rotary"),
    "gpt_j_residual": (False, False),
    "use_qk_layernorm": (False, False),
    "use_mup": (False, False),
    "sliding_window_width": (None, None),
    "num_unique_layers": (None, None),
    "moe_num_experts": (1, 1),
}
# Attention to every token before, which is all that there is here; `flash` only computes it faster.
_ATTENTION = {"global", "flash"}
# Our activation → gpt-neox's, and whether its fused GELU is used, which approximates by tanh.
_ACTIVATIONS = {
    "gelu": ("gelu", False),
    "gelu_pytorch_tanh": ("gelu", True),
    "gelu_new": ("gelu", True),
    "relu": ("relu", False),
    "silu": ("silu", False),
    "mish": ("mish", False),
}
_VOCABULARY_MULTIPLE = 128
_MAX_COUNT = 2**31 - 1


def read_options(folder: Path) -> dict[str, Any]:
    """The options that a checkpoint was trained with.

    Args:
        folder: Its `configs`.

    Returns:
        Value by name, in the spelling with underscores.

    Raises:
        CheckpointError: There are none, one cannot be read, or two contradict each other.
    """
    files = sorted(path for path in folder.glob("*") if path.suffix in (".yml", ".yaml"))
    if not files:
        raise CheckpointError(
            f"{str(folder)!r} has no .yml file; put those there that the model was trained with"
        )
    options: dict[str, Any] = {}
    for file in files:
        for name, value in _read_yaml(file).items():
            key = str(name).replace("-", "_")
            if key in options and options[key] != value:
                raise CheckpointError(
                    f"{str(folder)!r}: {key} is {short_repr(options[key])} and"
                    f" {short_repr(value)}; leave only the files that the model was trained with"
                )
            options[key] = value
    return options


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """No aliases: with them a short file can be endless."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name); write the value out")
        return super().compose_node(parent, index)


def _read_yaml(path: Path) -> dict[Any, Any]:
    check_regular(path)
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506
    except OSError as error:
        raise CheckpointError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{str(path)!r} is not YAML: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{str(path)!r} must hold options, name: value")
    return value


def config_from_options(
    options: Mapping[str, Any], *, intermediate_size: int, tied: bool, **ids: Any
) -> GPTNeoXJapaneseConfig:
    """What config.json says of a gpt-neox model.

    Args:
        options: Of `read_options`.
        intermediate_size: Width of the MLP, which the weights tell.
        tied: Whether the head is the embedding, which the weights tell.
        **ids: `vocab_size`, `bos_token_id`, `eos_token_id`.

    Raises:
        CheckpointError: The model is of another architecture, or a value makes no sense.
    """
    for name, (default, needed) in _FIXED.items():
        if (value := options.get(name, default)) != needed:
            raise _other_architecture(name, value, f"{needed!r}")
    heads = count_of(options, "num_attention_heads")
    if options.get("num_kv_heads") not in (None, heads):
        raise _other_architecture("num_kv_heads", options["num_kv_heads"], f"{heads}")
    if other := set(_attention_types(options.get("attention_config"))) - _ATTENTION:
        raise _other_architecture("attention_config", sorted(other), "'global'")
    hidden = count_of(options, "hidden_size")
    multiple, rest = divmod(intermediate_size, hidden)
    if rest:
        raise CheckpointError(
            f"the MLP is {intermediate_size} wide; in GPT-NeoX-Japanese its width is a multiple of"
            f" hidden_size, {hidden}"
        )
    return _config(
        hidden_size=hidden,
        num_hidden_layers=count_of(options, "num_layers"),
        num_attention_heads=heads,
        intermediate_multiple_size=multiple,
        hidden_act=_our_activation(options),
        max_position_embeddings=count_of(options, "max_position_embeddings"),
        initializer_range=_number(options, "init_method_std", 0.02),
        layer_norm_eps=_number(options, "layernorm_epsilon", 1e-5),
        rotary_pct=_number(options, "rotary_pct", 1.0),
        rotary_emb_base=_number(options, "rotary_emb_base", 10000),
        attention_dropout=_number(options, "attention_dropout", 0.0),
        hidden_dropout=_number(options, "hidden_dropout", 0.0),
        tie_word_embeddings=tied,
        architectures=["GPTNeoXJapaneseForCausalLM"],
        **ids,
    )


def options_from_config(
    config: GPTNeoXJapaneseConfig,
    *,
    num_ids: int,
    model_parallel: int,
    precision: str,
) -> dict[str, Any]:
    """The options with which gpt-neox has the same model.

    Args:
        config: Of the model.
        num_ids: How many ids it reads and writes.
        model_parallel: Over how many GPUs each layer is split.
        precision: gpt-neox's name of the weights' dtype.

    Raises:
        CheckpointError: gpt-neox has no such model.
    """
    if config.hidden_act not in _ACTIVATIONS:
        raise CheckpointError(
            f"config.json: gpt-neox has no activation {config.hidden_act!r}; it has"
            f" {', '.join(_ACTIVATIONS)}"
        )
    assert config.rope_parameters is not None
    if (kind := config.rope_parameters.get("rope_type", "default")) != "default":
        raise CheckpointError(f"config.json: gpt-neox has no rope_type {kind!r}, only 'default'")
    if config.rotary_emb_base != int(config.rotary_emb_base):
        raise CheckpointError(
            f"config.json: rotary_emb_base is {config.rotary_emb_base}; gpt-neox takes whole"
            " numbers only"
        )
    width = config.hidden_size * config.intermediate_multiple_size
    if width % 2:
        raise CheckpointError(
            f"config.json: the MLP is {width} wide; gpt-neox makes every width even"
        )
    activation, fused = _ACTIVATIONS[config.hidden_act]
    return {
        "pipe_parallel_size": 1,
        "model_parallel_size": model_parallel,
        "num_layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": width,
        "seq_length": config.max_position_embeddings,
        "max_position_embeddings": config.max_position_embeddings,
        "make_vocab_size_divisible_by": _multiple_without_padding(num_ids, model_parallel),
        "norm": "layernorm",
        "layernorm_epsilon": config.layer_norm_eps,
        "pos_emb": "rotary",
        "rotary_pct": config.rotary_pct,
        "rotary_emb_base": int(config.rotary_emb_base),
        "no_weight_tying": not config.tie_word_embeddings,
        "output_layer_parallelism": "column",
        "gpt_j_residual": False,
        "use_bias_in_norms": True,
        "use_bias_in_attn_linear": True,
        "use_bias_in_mlp": True,
        "activation": activation,
        "bias_gelu_fusion": fused,
        "attention_dropout": config.attention_dropout,
        "hidden_dropout": config.hidden_dropout,
        "init_method_std": config.initializer_range,
        "precision": precision,
    }


def read_model_config(directory: Path) -> GPTNeoXJapaneseConfig:
    """The configuration of a model directory.

    Raises:
        CheckpointError: As of `read_config`.
    """
    return _config(**read_config(directory))


def vocabulary_multiple(options: Mapping[str, Any], model_parallel: int) -> int:
    """The number to whose next multiple gpt-neox fills up the vocabulary.

    Args:
        options: Of `read_options` or `options_from_config`.
        model_parallel: Over how many GPUs each layer is split.
    """
    return count_of(options, "make_vocab_size_divisible_by", _VOCABULARY_MULTIPLE) * model_parallel


def count_of(options: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """An option that is a whole number above 0, and no more than gpt-neox counts to.

    Args:
        options: Of `read_options` or `options_from_config`.
        name: In the spelling with underscores.
        default: gpt-neox's; None if it has none.

    Raises:
        CheckpointError: It is missing or something else.
    """
    value = options.get(name, default)
    if type(value) is not int or not 1 <= value <= _MAX_COUNT:
        raise CheckpointError(
            f"{name} is {short_repr(value)} in the .yml files; it must be a whole number from 1 to"
            f" {_MAX_COUNT:,}"
        )
    return value


def _multiple_without_padding(num_ids: int, model_parallel: int) -> int:
    """The largest power of two that needs no ids that mean nothing; 128 if there is none."""
    multiple = _VOCABULARY_MULTIPLE
    while multiple and num_ids % (multiple * model_parallel):
        multiple //= 2
    return multiple or _VOCABULARY_MULTIPLE


def _config(**fields: Any) -> GPTNeoXJapaneseConfig:
    try:
        return GPTNeoXJapaneseConfig(**fields)
    except (StrictDataclassError, TypeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"the configuration makes no sense: {reason}") from error


def _our_activation(options: Mapping[str, Any]) -> str:
    theirs = "silu" if (value := options.get("activation", "gelu")) == "swish" else value
    fused = bool(options.get("bias_gelu_fusion", False)) and theirs == "gelu"
    for ours, pair in _ACTIVATIONS.items():
        if pair == (theirs, fused):
            return ours
    raise CheckpointError(
        f"activation is {short_repr(value)}; GPT-NeoX-Japanese has gelu, relu, silu and mish, none"
        " of them gated"
    )


def _attention_types(value: Any) -> Iterator[str]:
    """The names in `[[["global"], 12]]` and the like."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _attention_types(item)


def _number(options: Mapping[str, Any], name: str, default: float) -> float:
    value = options.get(name, default)
    try:
        if isinstance(value, bool):
            raise ValueError
        # YAML takes 1e-5 for a string: it wants 1.0e-5.
        number = value if isinstance(value, int) else float(value)
        if not math.isfinite(number):
            raise ValueError
        return number
    except (OverflowError, TypeError, ValueError):
        raise CheckpointError(
            f"{name} is {short_repr(value)} in the .yml files; it must be a number"
        ) from None


def _other_architecture(name: str, value: object, needed: str) -> CheckpointError:
    return CheckpointError(
        f"{name} is {short_repr(value)}, and in GPT-NeoX-Japanese always {needed}: this model is of"
        " another architecture"
    )
