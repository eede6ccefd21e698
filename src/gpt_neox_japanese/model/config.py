"""`GPTNeoXJapaneseConfig`: the numbers that define a model, as config.json holds them."""
# Methods of transformers and torch carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import wraps
from typing import Any, ClassVar, TypeVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from gpt_neox_japanese.checks import one_line, short_repr
from gpt_neox_japanese.errors import ArgumentError, CheckpointError, NeoXJapaneseError
from gpt_neox_japanese.files.model_config import (
    ROTARY_KEYS,
    check_config,
    check_no_code,
    rotary_parameters,
)
from gpt_neox_japanese.model.decode.cache_names import CACHE_NAMES

__all__ = ["GPTNeoXJapaneseConfig"]

_TRANSFORMERS_4 = ("rotary_pct", "rotary_emb_base")  # how it spells the rotary numbers
_ROTARY_ARGUMENTS = frozenset({"rope_parameters", "rope_scaling", *ROTARY_KEYS})

_Config = TypeVar("_Config", bound="type[PreTrainedConfig]")


@contextmanager
def _argument_errors() -> Iterator[None]:
    """What transformers raises, where a value is of another type than it expects, as ours."""
    try:
        yield
    except NeoXJapaneseError:
        raise
    except Exception as error:
        raise ArgumentError(f"the configuration cannot be used: {one_line(error)}") from error


def _rotary_change(rope: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `rope` becomes by rotary arguments: what they do not name stays as it is.

    But `rope_parameters` name everything, and `rope_scaling` everything but the two numbers.
    """
    changed = rotary_parameters(given, "", ArgumentError)
    if "rope_parameters" in given:
        return changed
    stays = set(ROTARY_KEYS.values() if "rope_scaling" in given else rope)
    stays -= {key for name, key in ROTARY_KEYS.items() if given.get(name) is not None}
    stays -= set(given.get("rope_scaling") or ())
    return changed | {key: rope[key] for key in stays}


def _with_our_errors(config_class: _Config) -> _Config:
    """Decorate a config class so that what transformers refuses is an `ArgumentError`."""
    initialize = config_class.__init__

    @wraps(initialize)
    def checked_init(self: PreTrainedConfig, *args: Any, **kwargs: Any) -> None:
        with _argument_errors():
            initialize(self, *args, **kwargs)

    config_class.__init__ = checked_init  # type: ignore[method-assign]
    return config_class


@_with_our_errors
@strict
class GPTNeoXJapaneseConfig(PreTrainedConfig):
    """The hyper-parameters of a GPT-NeoX-Japanese model; the defaults are those of the 2.7B.

    Args:
        vocab_size: Number of token ids.
        hidden_size: Channels of the residual stream; a multiple of `num_attention_heads`.
        num_hidden_layers: Transformer layers.
        num_attention_heads: Attention heads of every layer.
        intermediate_multiple_size: The MLP is `hidden_size * intermediate_multiple_size` wide.
        hidden_act: Name of the MLP's activation; `"gelu"` is the exact (erf) GELU.
        rotary_pct: Fraction of each head's channels that is rotated, in (0, 1].
        rotary_emb_base: Base of the rotary frequencies, positive.
        rope_parameters: The same two numbers as transformers 5 spells them,
            `{"rope_type": "default", "rope_theta": …, "partial_rotary_factor": …}`. Other rope
            types (`"linear"`, `"yarn"`, …) work as in transformers.
        max_position_embeddings: Longest sequence the model is meant for, in tokens.
        initializer_range: Standard deviation of freshly initialised weights.
        layer_norm_eps: Epsilon of every LayerNorm.
        use_cache: Whether a forward pass returns its keys and values.
        bos_token_id: Id of `<|startoftext|>`.
        eos_token_id: Id of `<|endoftext|>`, or several ids that end a text.
        pad_token_id: Id that fills up short rows, if there is one.
        attention_dropout: Dropout probability of attention weights, used in training only.
        hidden_dropout: Dropout probability of each sublayer's output, used in training only.
        tie_word_embeddings: Whether input and output embeddings are one tensor.
        is_decoder: Kept for old configuration files; the model is always a decoder.

    Raises:
        ArgumentError: (a `ValueError`) if a value has the wrong type or makes no sense, or if
            `rope_parameters` contradicts `rotary_pct` or `rotary_emb_base`.
    """

    model_type = "gpt_neox_japanese"
    keys_to_ignore_at_inference: ClassVar[list[str]] = [*CACHE_NAMES]
    attribute_map: ClassVar[dict[str, str]] = {  # other spellings of an attribute
        "partial_rotary_factor": "rotary_pct",
        "rope_theta": "rotary_emb_base",
    }

    # A row-wise split embedding lets the tied, column-wise split head share its shards. A slice of
    # `query_key_value` is whole heads because its rows are packed [heads, 3, head_dim].
    base_model_tp_plan: ClassVar[dict[str, str]] = {
        "embed_in": "embedding_rowwise",
        "layers.*.attention.query_key_value": "colwise",
        "layers.*.attention.dense": "rowwise",
        "layers.*.mlp.dense_h_to_4h": "colwise",
        "layers.*.mlp.dense_4h_to_h": "rowwise",
    }
    base_model_pp_plan: ClassVar[dict[str, Sequence[list[str]]] | None] = {
        "embed_in": (["input_ids"], ["inputs_embeds"]),
        "layers": (["hidden_states", "attention_mask"], ["hidden_states"]),
        "final_layer_norm": (["hidden_states"], ["hidden_states"]),
    }
    base_model_fsdp_plan: ClassVar[dict[str, str]] = {
        "embed_in": "free_full_weight",
        "layers.*": "free_full_weight",
        "final_layer_norm": "keep_full_weight",
    }

    vocab_size: int = 32000
    hidden_size: int = 2560
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    intermediate_multiple_size: int = 4
    hidden_act: str = "gelu"
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    use_cache: bool = True
    bos_token_id: int | None = 31996
    eos_token_id: int | list[int] | None = 31999
    pad_token_id: int | None = None
    rope_parameters: dict[str, Any] | None = None
    attention_dropout: float | int = 0.1
    hidden_dropout: float | int = 0.0
    is_decoder: bool = False
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        given = vars(self) | kwargs
        check_config(given, "", ArgumentError)
        super().__post_init__(**kwargs)
        if self.output_attentions and self._attn_implementation is None:
            self._attn_implementation = "eager"
        self.check()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make a config of what a file says; transformers calls this wherever it reads one.

        Args:
            config_dict: What config.json says.
            **kwargs: What the caller says instead.

        Returns:
            The config, and with `return_unused_kwargs` what of `kwargs` is no field.

        Raises:
            CheckpointError: The file has a value that cannot be used.
            ArgumentError: The caller gives one.
        """
        check_config(config_dict, "config.json: ")
        check_no_code(config_dict, "config.json: ")
        settable = {field.name for field in fields(cls)} | {"model_type"}
        for name in config_dict:
            known = getattr(cls, name, None)
            if hasattr(cls, name) and name not in settable and not getattr(known, "fset", None):
                raise CheckpointError(
                    f"config.json: {short_repr(name)} is no field, but part of the class that reads"
                    " it; remove it"
                )
        given = {name: kwargs.pop(name) for name in _ROTARY_ARGUMENTS & kwargs.keys()}
        if given:
            kwargs["rope_parameters"] = _rotary_change(rotary_parameters(config_dict, ""), given)
        with _argument_errors():
            made = super().from_dict(config_dict, **kwargs)
        config = made[0] if isinstance(made, tuple) else made
        config.check()
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign a value; what `rope_parameters` leaves out is as if the constructor were given it.

        Args:
            name: Of the attribute.
            value: Checked by `check`, unless a rotary number makes no sense at all.

        Raises:
            ArgumentError: `rope_parameters` has such a number, or is no object.
        """
        # The first value is the constructor's, who may have been given other spellings as well.
        if name != "rope_parameters" or vars(self).get(name, value) is value:
            super().__setattr__(name, value)
        else:
            super().__setattr__(name, rotary_parameters({name: value}, "", ArgumentError))
            self.standardize_rope_params()

    @property
    def rotary_pct(self) -> float:
        """Fraction of each head's channels that is rotated."""
        return float(self._rope["partial_rotary_factor"])

    @rotary_pct.setter
    def rotary_pct(self, value: float) -> None:
        """Change the fraction of rotated channels.

        Args:
            value: In (0, 1].
        """
        self._rope["partial_rotary_factor"] = value

    @property
    def rotary_emb_base(self) -> float:
        """Base of the rotary frequencies."""
        base: float = self._rope["rope_theta"]
        return base

    @rotary_emb_base.setter
    def rotary_emb_base(self, value: float) -> None:
        """Change the base of the rotary frequencies.

        Args:
            value: Above 0.
        """
        self._rope["rope_theta"] = value

    @property
    def rope_scaling(self) -> dict[str, Any]:
        """The older name of `rope_parameters`."""
        return self._rope

    @rope_scaling.setter
    def rope_scaling(self, value: dict[str, Any] | None) -> None:
        """Change the rope type; rotary numbers that are not given stay.

        Args:
            value: As `rope_parameters`, or None for the default type.
        """
        self.rope_parameters = _rotary_change(self._rope, {"rope_scaling": value})

    @property
    def _rope(self) -> dict[str, Any]:
        assert self.rope_parameters is not None
        return self.rope_parameters

    def convert_rope_params_to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Gather the rotary arguments of both spellings in `rope_parameters`.

        transformers calls this from `__post_init__` with every argument that is not a field, and
        goes on with what is returned.

        Args:
            **kwargs: Arguments that are no fields, such as `rotary_pct` and `rope_scaling`.

        Returns:
            Those that are not rotary.

        Raises:
            ArgumentError: Two spellings contradict each other.
        """
        given = {"rope_parameters": self.rope_parameters, **kwargs}
        self.ignore_keys_at_rope_validation = {"partial_rotary_factor"}
        self.rope_parameters = rotary_parameters(given, "", ArgumentError)
        return {name: value for name, value in kwargs.items() if name not in _ROTARY_ARGUMENTS}

    def to_dict(self) -> dict[str, Any]:
        """Return what config.json holds, the rotary numbers under both of their names.

        transformers 4 reads only its own names: without them it would silently fall back to the
        defaults.
        """
        values: dict[str, Any] = super().to_dict()
        for argument in _TRANSFORMERS_4:
            values[argument] = values["rope_parameters"][ROTARY_KEYS[argument]]
        return values

    def check(self) -> None:
        """Check all values, also those that were assigned since.

        Raises:
            ArgumentError: One of them makes no sense.
        """
        check_config(vars(self), "", ArgumentError)
        for name, key in ROTARY_KEYS.items():
            if self._rope.get(key) is None:
                raise ArgumentError(f"{name} is None; give it a number")
        if self.hidden_act not in ACT2FN:
            raise ArgumentError(
                f"hidden_act is {short_repr(self.hidden_act)}, which transformers does not know;"
                f" choose one of {', '.join(ACT2FN)}"
            )
        if (kind := self._rope["rope_type"]) not in ("default", *ROPE_INIT_FUNCTIONS):
            raise ArgumentError(
                f"rope_type is {short_repr(kind)}; choose default or one of"
                f" {', '.join(ROPE_INIT_FUNCTIONS)}"
            )
        with _argument_errors():
            self.validate_rope()
